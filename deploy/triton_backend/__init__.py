"""Our Triton backend. Triton runs a copy of `model.py`; this project never imports it."""
