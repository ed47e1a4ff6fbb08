"""What one would write instead: the same models in one process, behind FastAPI."""
