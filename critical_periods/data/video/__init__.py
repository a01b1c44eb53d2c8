"""Frame pairs from videos: lists, index, decoding, shards, batches."""
