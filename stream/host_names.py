"""Host names: say whether a request to a server on loopback comes from this machine's own programs."""

import ipaddress
from urllib.parse import urlsplit


def is_own_name(host_header: str, bound_host: str) -> bool:
    """Return whether a request may name the server so.

    A server on loopback answers only to loopback's names. Otherwise a web site whose name points to 127.0.0.1 (DNS
    rebinding) could read the pages through a browser on this machine.

    Args:
        host_header: Value of the Host header; empty in requests of HTTP/1.0, which browsers do not send.
        bound_host: Address that the server listens on.
    """
    if not is_loopback(bound_host) or not host_header:
        return True
    try:
        name = urlsplit(f"//{host_header}").hostname or ""
    except ValueError:  # no valid IPv6 address in brackets
        return False
    return name == bound_host.lower() or is_loopback(name)


def is_loopback(name: str) -> bool:
    """Return whether a host name or an address names this machine to itself alone."""
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
