"""Check the tokens of callers, and manage the file of tokens."""
