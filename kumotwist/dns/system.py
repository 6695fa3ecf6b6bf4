"""The name servers of the system (resolv.conf(5)), and those whose word on DNSSEC counts."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from kumotwist.dns.settings import DNSSettings
from kumotwist.settings.types import HostPort

__all__ = ["system_nameservers", "trusted_servers"]

_PORT = 53
#: The C library looks no further either.
_MAX_SERVERS = 3


def system_nameservers(path: str | Path = "/etc/resolv.conf") -> tuple[HostPort, ...]:
    """Read the C{nameserver} lines; search lists and options are of no use for mail.

    @return: at most three; the local host's if there are none, as the C library has it.
    """
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2 or words[0] != "nameserver":
            continue
        try:
            found.append(HostPort(str(ipaddress.ip_address(words[1])), _PORT))
        except ValueError:
            continue  # what the C library cannot read it does not ask either
    return tuple(found[:_MAX_SERVERS]) or (HostPort("127.0.0.1", _PORT),)


def trusted_servers(settings: DNSSettings) -> frozenset[HostPort]:
    """The name servers that are asked and whose word on DNSSEC counts."""
    return frozenset(
        server
        for server in settings.nameservers or system_nameservers()
        if any(
            ipaddress.ip_address(server.host) in network for network in settings.trusted_nameservers
        )
    )
