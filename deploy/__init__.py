"""Ways to run Vitriton. `deploy.local` is the one-machine runner."""
