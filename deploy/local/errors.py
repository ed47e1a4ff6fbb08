"""The one error of the local runner."""


class LocalError(Exception):
    """The stack cannot start or keep running; the message is one line with the way out."""
