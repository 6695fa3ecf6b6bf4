"""Domains, IP addresses, networks, hosts with ports, and where a server listens."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import NamedTuple

import idna

from kumotwist.settings.kind import SettingType, split_list

__all__ = [
    "DOMAIN",
    "HOST_NAME",
    "HOST_PORT",
    "IP_ADDRESS",
    "NETWORKS",
    "PORTS",
    "SERVER_ENDPOINT",
    "HostPort",
    "IPAddress",
    "IPNetwork",
    "PortRange",
    "parse_domain",
    "parse_host_port",
    "parse_server_endpoint",
]

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")


def parse_domain(text: str) -> str:
    """Read a domain name into lower-case A-labels (RFC 5890) without a final dot."""
    name = text.strip().removesuffix(".").lower()
    if not name.isascii():
        try:
            name = idna.encode(name, uts46=True).decode("ascii")
        except UnicodeError as error:
            raise ValueError(f"{text!r} is not a domain name: {error}") from None
    labels = name.split(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError(f"{text!r} is not a domain name (such as example.com)")
    if labels[-1].isdigit():
        raise ValueError(f"{text!r} is not a domain name: its last part is a number")
    return name


DOMAIN: SettingType[str] = SettingType("domain", parse_domain)


def _parse_host_name(text: str) -> str:
    """Read the name of a host, or an address literal (RFC 5321, 4.1.3), as EHLO takes both."""
    value = text.strip()
    match = re.fullmatch(r"\[(IPv6:)?([0-9A-Fa-f:.]+)\]", value, re.IGNORECASE)
    if match is None:
        return parse_domain(value)
    try:
        address = ipaddress.ip_address(match.group(2))
    except ValueError:
        raise ValueError(f"{text!r} is not an address literal (such as [10.0.0.1])") from None
    return f"[IPv6:{address}]" if address.version == 6 else f"[{address}]"


HOST_NAME: SettingType[str] = SettingType("host name", _parse_host_name)


def _parse_ip(text: str) -> IPAddress:
    try:
        return ipaddress.ip_address(text.strip().strip("[]"))
    except ValueError:
        raise ValueError(
            f"{text!r} is not an IP address (such as 10.0.0.1 or 2001:db8::1)"
        ) from None


IP_ADDRESS: SettingType[IPAddress] = SettingType("IP address", _parse_ip)


def _parse_networks(text: str) -> tuple[IPNetwork, ...]:
    networks = []
    for item in split_list(text):
        try:
            interface = ipaddress.ip_interface(item.strip("[]"))
        except ValueError:
            raise ValueError(
                f"{item!r} is neither an address nor a network (such as 10.0.0.0/8 or ::1)"
            ) from None
        if int(interface.ip) != int(interface.network.network_address):
            # Somebody meant either this address or that network; they differ in who gets in.
            raise ValueError(
                f"{item!r} is an address within the network {interface.network}; write "
                f"{interface.network} for the network, {interface.ip} for the address alone"
            )
        networks.append(interface.network)
    return tuple(networks)


def _render_items(value: Iterable[object]) -> str:
    return ", ".join(str(item) for item in value)


NETWORKS: SettingType[tuple[IPNetwork, ...]] = SettingType(
    "list of networks", _parse_networks, _render_items
)


class HostPort(NamedTuple):
    """A host, by name or address (without brackets), and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_host_port(text: str, default_port: int | None = None) -> HostPort:
    """Read C{HOST:PORT}, C{1.2.3.4:PORT} or C{[V6]:PORT}."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^\s:\[\]]+))(?::(\d{1,5}))?", text.strip())
    wrong = f"{text!r} is not HOST:PORT (such as 10.0.5.10:5000 or [2001:db8::1]:5000)"
    if match is None or (match.group(3) is None and default_port is None):
        raise ValueError(wrong)
    port = int(match.group(3)) if match.group(3) else default_port
    if port is None or not 1 <= port <= 65535:
        raise ValueError(f"{text!r}: port {port} is not between 1 and 65535")
    return HostPort(match.group(1) or match.group(2), port)


HOST_PORT: SettingType[HostPort] = SettingType("HOST:PORT", parse_host_port)


def parse_server_endpoint(text: str) -> str:
    """Read where a server listens: a Twisted server endpoint string, or ADDR:PORT for TCP.

    @return: a Twisted server endpoint string.
    """
    value = text.strip()
    match = re.fullmatch(
        r"(?:\[([0-9A-Fa-f:.]+)\]|(\d+\.\d+\.\d+\.\d+|\*|localhost)?):(\d+)", value
    )
    if match is None:
        if not re.match(r"[A-Za-z][A-Za-z0-9_]*:", value) or "\n" in value:
            raise ValueError(
                f"{text!r} is neither ADDR:PORT nor a server endpoint string "
                "(such as 127.0.0.1:2525 or tcp:2525:interface=127.0.0.1)"
            )
        return value
    v6, v4, port = match.groups()
    if not 0 <= int(port) <= 65535:
        raise ValueError(f"{text!r}: port {port} is not between 0 and 65535")
    if v6 or (v4 and v4[0].isdigit()):
        try:
            address = ipaddress.ip_address(v6 or v4)
        except ValueError as error:
            raise ValueError(f"{text!r} has no IP address before the port: {error}") from None
        if address.version == 6:
            escaped = str(address).replace(":", "\\:")
            return f"tcp6:{port}:interface={escaped}"
    interface = {"*": "", None: "", "localhost": "127.0.0.1"}.get(v4, v4)
    return f"tcp:{port}" + (f":interface={interface}" if interface else "")


SERVER_ENDPOINT: SettingType[str] = SettingType("server endpoint", parse_server_endpoint)


class PortRange(NamedTuple):
    """Ports from C{first} to C{last}, both included."""

    first: int
    last: int

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


def _parse_ports(text: str) -> tuple[PortRange, ...]:
    ranges = []
    for item in split_list(text):
        match = re.fullmatch(r"(\d+)(?:\s*-\s*(\d+))?", item)
        if match is None:
            raise ValueError(f"{item!r} is neither a port nor a range (such as 25 or 1024-65535)")
        first = int(match.group(1))
        last = int(match.group(2) or first)
        if not 1 <= first <= last <= 65535:
            raise ValueError(f"{item!r} is not a range within 1 to 65535")
        ranges.append(PortRange(first, last))
    return tuple(ranges)


PORTS: SettingType[tuple[PortRange, ...]] = SettingType(
    "list of ports", _parse_ports, _render_items
)
