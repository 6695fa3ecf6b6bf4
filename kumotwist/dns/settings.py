"""What can be configured of name resolution: the C{[dns]} section."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping

import attrs

from kumotwist.settings import SettingType, setting
from kumotwist.settings.types import (
    DURATION,
    NETWORKS,
    HostPort,
    IPAddress,
    IPNetwork,
    list_of,
    parse_host_port,
    split_list,
)

__all__ = ["DNSSettings", "Hosts", "parse_hosts"]

Hosts = Mapping[str, tuple[IPAddress, ...]]

_PORT = 53
_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?")


def _parse_nameserver(text: str) -> HostPort:
    try:
        # Before anything else: an IPv6 address without brackets is full of colons.
        return HostPort(str(ipaddress.ip_address(text.strip())), _PORT)
    except ValueError:
        found = parse_host_port(text, _PORT)
    try:
        ipaddress.ip_address(found.host)
    except ValueError:
        raise ValueError(
            f"{text!r}: a name server is given by its address (such as 127.0.0.1 or [::1]:5353)"
        ) from None
    return found


def parse_hosts(text: str) -> Hosts:
    """Read C{ADDR NAME [NAME…]} entries, one a line or separated by commas, as in C{/etc/hosts}.

    @return: addresses by name (lower case, no final dot), in the order of the entries.
    @raise ValueError: for an entry that is not one.
    """
    found: dict[str, tuple[IPAddress, ...]] = {}
    for entry in split_list(text):
        first, *names = entry.split()
        try:
            address = ipaddress.ip_address(first)
        except ValueError:
            raise ValueError(
                f"{entry!r} is not ADDR NAME [NAME…] (such as 127.0.0.1 mx.example.com)"
            ) from None
        if not names:
            raise ValueError(f"{entry!r}: the name is missing (such as {address} mx.example.com)")
        for name in names:
            if not _NAME.fullmatch(name):
                raise ValueError(f"{entry!r}: {name!r} is not a host name")
            key = name.lower().removesuffix(".")
            found[key] = (*found.get(key, ()), address)
    return found


def _render_hosts(value: Hosts) -> str:
    return ", ".join(
        f"{address} {name}" for name, addresses in value.items() for address in addresses
    )


NAMESERVER: SettingType[HostPort] = SettingType("ADDR[:PORT]", _parse_nameserver)
HOSTS: SettingType[Hosts] = SettingType("list of ADDR NAME [NAME…]", parse_hosts, _render_hosts)


@attrs.define(frozen=True)
class DNSSettings:
    """Who is asked for names, and how long."""

    nameservers: tuple[HostPort, ...] = setting(
        list_of(NAMESERVER),
        "The name servers to ask, by address; they must resolve recursively. The first that "
        "answers is preferred from then on. Without it, those of `/etc/resolv.conf`.",
        default=(),
    )
    timeout: float = setting(
        DURATION,
        "How long one look-up may take, all name servers together; after that the message is "
        "tried again later.",
        default=5.0,
    )
    trusted_nameservers: tuple[IPNetwork, ...] = setting(
        NETWORKS,
        "Where the name servers are whose word on DNSSEC counts (the AD flag): they validate, and "
        "nobody can forge what comes from them. DANE needs it.",
        default=tuple(ipaddress.ip_network(text) for text in ("127.0.0.0/8", "::1")),
    )
    hosts: Hosts = setting(
        HOSTS,
        "Addresses that are known without asking, as in `/etc/hosts`: `ADDR NAME [NAME…]`, one a "
        "line or separated by commas. A mail domain that is named here is its own mail "
        "exchanger.",
        factory=dict,
    )
