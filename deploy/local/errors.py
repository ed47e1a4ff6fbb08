"""The one error of the local runner."""


class LocalError(Exception):
    """The stack cannot start or go on; the message is one line with the reason and the way out."""
