"""`python -m gateway`, the same as `vitriton gateway`."""

from gateway.server import main

if __name__ == "__main__":
    main()
