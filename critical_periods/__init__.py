"""Critical learning periods in deep networks: put a deficit in, take it out, measure what stays."""

__version__ = "0.1.0"
