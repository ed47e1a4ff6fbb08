"""Servers to compare with: the same models behind FastAPI, without Triton."""
