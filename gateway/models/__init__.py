"""Which models Triton has, and loading one on demand."""
