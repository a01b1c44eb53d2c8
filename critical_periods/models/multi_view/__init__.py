"""The multi-view transformer of MultiMAE and its parts."""
