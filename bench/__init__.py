"""What is measured, and how: start with `bench.run`, or `bench.gpu.run` for a GPU."""
