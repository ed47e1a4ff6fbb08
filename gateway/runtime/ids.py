"""Ids that tell requests apart."""

from random import Random

# No secret: a system call for every id would cost more than the id.
_random = Random()  # noqa: S311 - see above


def new_id() -> str:
    """32 hexadecimal digits that nobody else has."""
    return f"{_random.getrandbits(128):032x}"
