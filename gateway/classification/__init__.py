"""One classification: cache, decode, infer, rank. Start with `classifier`."""
