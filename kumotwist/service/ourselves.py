"""Which addresses lead back to this node."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable

from kumotwist.settings.types import IPAddress

__all__ = ["OwnAddresses", "is_local"]

#: Any port will do: nothing is sent.
_PORT = 9


def is_local(address: IPAddress) -> bool:
    """Whether an address is one of this machine's.

    The kernel is asked from where it would send to it: to an address of one's own, from that very
    address. (Whether it can be bound says nothing where C{ip_nonlocal_bind} is on, as transparent
    proxies want it.)
    """
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), _PORT))
            return ipaddress.ip_address(probe.getsockname()[0].partition("%")[0]) == address
    except (OSError, ValueError):
        return False


class OwnAddresses:
    """Says whether this node listens on an address and a port.

    @param listening: gives the addresses and ports on which it does.
    @param local: says whether an address is one of this machine's.
    """

    def __init__(
        self,
        listening: Callable[[], Iterable[tuple[str, int]]],
        local: Callable[[IPAddress], bool] = is_local,
    ) -> None:
        self._listening = listening
        self._local = local

    def __call__(self, address: IPAddress, port: int) -> bool:
        """Whether it does."""
        for host, own_port in self._listening():
            if own_port != port:
                continue
            own = ipaddress.ip_address(host.partition("%")[0])
            if own == address or (
                own.is_unspecified and own.version >= address.version and self._local(address)
            ):
                return True
        return False
