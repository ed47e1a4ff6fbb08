"""Ways to run Vitriton: `cli` is the command `vitriton`, `local` the one-machine runner."""
