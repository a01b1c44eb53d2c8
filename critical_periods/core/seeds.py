"""What seeds may be."""

# NumPy's, which Lightning seeds too.
LARGEST_SEED = 2**32 - 1
