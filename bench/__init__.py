"""What is measured, and how: start with `bench.run`."""
