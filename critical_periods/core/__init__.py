"""What every room stands on: batches, errors, random streams, files."""
