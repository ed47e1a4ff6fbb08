"""Measure the stack on an NVIDIA machine: start with `bench.gpu.run`."""
