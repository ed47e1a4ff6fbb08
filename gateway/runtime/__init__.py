"""What the process asks of the operating system."""
