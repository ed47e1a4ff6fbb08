"""Keep a TCP port for processes that are yet to listen on it."""

import socket


def reserve_port(host: str, port: int) -> socket.socket:
    """A socket that keeps an address for the workers, which bind it again to listen on it.

    Args:
        host: Name or address of an interface.
        port: 0 takes a free one, which `getsockname` tells.

    Raises:
        OSError: The address is in use, is no address of this machine, or may not be bound.
    """
    # A name such as `localhost` means its IPv4 address.
    wanted = socket.AF_INET6 if ":" in host else socket.AF_INET
    family, kind, _, _, address = socket.getaddrinfo(host, port, wanted, socket.SOCK_STREAM)[0]
    # Fails for an address on which anybody listens. The option SO_REUSEPORT would share it.
    with socket.socket(family, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        free = probe.getsockname()
    reserved = socket.socket(family, kind)
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        reserved.bind(free)
    except OSError:
        reserved.close()
        raise
    return reserved
