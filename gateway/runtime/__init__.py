"""Ports, memory and processors: what the process takes from the operating system."""
