"""Reserve a TCP port for processes that will listen on it later."""

import socket


def reserve_port(host: str, port: int) -> socket.socket:
    """A socket that reserves an address. The workers bind the same address and listen on it.

    Args:
        host: Name or address of an interface.
        port: 0 takes a free port, which `getsockname` of the socket returns.

    Raises:
        OSError: The address is in use, is no address of this machine, or may not be bound.
    """
    # A name such as `localhost` means its IPv4 address.
    address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
    family, kind, _, _, address = socket.getaddrinfo(
        host, port, address_family, socket.SOCK_STREAM
    )[0]
    # Binding fails if another process listens on the address. With SO_REUSEPORT it would succeed.
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
