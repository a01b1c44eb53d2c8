"""Studies: whole sweeps as trees of segments, trained once each."""
