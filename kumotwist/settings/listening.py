"""Why nothing can listen where a C{listen} says, in words that help."""

from __future__ import annotations

import errno

from twisted.internet.error import CannotListenError

__all__ = ["why_not_listening"]


def why_not_listening(error: BaseException | None) -> str:
    """What is wrong with an address, and what to do.

    @param error: what listening ended with.
    """
    cause = getattr(error, "socketError", None)
    if not isinstance(error, CannotListenError) or not isinstance(cause, OSError):
        return str(error)
    host, port = str(error.interface or "0.0.0.0"), error.port
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if not isinstance(port, int):
        place = str(port)  # the path of a Unix socket
    if cause.errno == errno.EADDRINUSE:
        who = f"; ss -ltnp 'sport = :{port}' shows it" if isinstance(port, int) else ""
        return f"{place} is in use by another process (stop that one or listen elsewhere{who})"
    if cause.errno == errno.EADDRNOTAVAIL:
        return f"this machine does not have the address of {place} (ip address shows those it has)"
    if cause.errno == errno.EACCES:
        return (
            f"no permission for {place} (ports below 1024 want root, CAP_NET_BIND_SERVICE or a "
            "socket of systemd)"
        )
    return str(error)
