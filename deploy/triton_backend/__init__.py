"""Our Triton backend: Triton's python backend imports `model` by its path."""
