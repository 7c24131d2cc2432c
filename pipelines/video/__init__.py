"""Videos and their frames: finding, indexing, decoding."""
