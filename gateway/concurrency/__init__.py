"""Calls that run at once: identical ones share a result, others share a batch."""
