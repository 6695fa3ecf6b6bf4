"""Who may send to whom through a listener: the difference between a relay and an open relay.

A client may relay by its address (C{relay_hosts}); everybody else reaches the domains of
C{relay_to} only. For them an address whose local part names another destination is refused as
well, since whatever receives the mail next might follow it: C{user%other@here} (the percent
hack), C{other!user@here} (a bang path), C{"user@other"@here} (a quoted address). Source routes were
dropped when the address was read (RFC 5321, appendix C).
"""

from __future__ import annotations

import functools
import ipaddress

from kumotwist.settings.types import IPNetwork
from kumotwist.wire.smtp.replies import Reply
from kumotwist.wire.smtp.syntax import domain_of

__all__ = ["UNIX", "RelayControl", "plain_address"]

#: Stands for the address of a Unix socket's client. The socket's file mode says who may use it,
#: so such a client is judged as one from 127.0.0.1.
UNIX = "unix"

_ROUTING = frozenset("%!@:")


@functools.lru_cache(maxsize=1024)
def plain_address(host: str) -> str:
    """An IP address as networks are compared with: IPv4-mapped IPv6 as IPv4, without a zone."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


class RelayControl:
    """Judges clients and recipients.

    @param relay_hosts: networks whose clients may send to any domain.
    @param relay_to: domains (lower case, A-labels), C{*.domain} or C{*} that anybody may send to.
    """

    def __init__(
        self, relay_hosts: tuple[IPNetwork, ...] = (), relay_to: tuple[str, ...] = ()
    ) -> None:
        self._networks = relay_hosts
        self._domains = frozenset(name for name in relay_to if not name.startswith("*."))
        self._suffixes = tuple(name[1:] for name in relay_to if name.startswith("*."))
        self._anywhere = "*" in self._domains
        # Judged once per session, and most sessions come from few clients.
        self._is_relay_host = functools.lru_cache(maxsize=1024)(self._look_up)

    def may_relay(self, host: str) -> bool:
        """Whether the client at an address may send to any domain.

        @param host: as L{plain_address} makes it, or L{UNIX}; anything else may not.
        """
        return self._is_relay_host(host)

    def _look_up(self, host: str) -> bool:
        try:
            address = ipaddress.ip_address("127.0.0.1" if host == UNIX else host)
        except ValueError:
            return False
        return any(address in network for network in self._networks)

    def refusal(self, host: str, address: str) -> Reply | None:
        """Judge a recipient of a client that may not relay.

        @param host: the client's address, for the words.
        @param address: the recipient, as the syntax of RCPT let it through.
        @return: L{None} if mail for it is taken from anybody.
        """
        local_part, at, _ = address.rpartition("@")
        domain = domain_of(address)
        known = self._anywhere or domain in self._domains or domain.endswith(self._suffixes)
        if not at or not known or domain.startswith("[") or _ROUTING.intersection(local_part):
            return Reply.of(550, "5.7.1", f"relaying not permitted for {host}")
        return None
