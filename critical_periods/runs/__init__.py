"""One run: built from a config, and tried before it trains."""
