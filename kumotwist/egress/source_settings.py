"""What can be configured about an egress source; the names are KumoMTA's."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

import attrs

from kumotwist.egress.header_facts import HEADER_FACTS, HeaderFact
from kumotwist.egress.suspension import SUSPENSION, Suspension
from kumotwist.endpoints import EndpointTemplate
from kumotwist.settings import Problem, SettingType, setting
from kumotwist.settings.types import (
    BOOLEAN,
    HOST_NAME,
    IP_ADDRESS,
    SECRET,
    TEXT,
    HostPort,
    IPAddress,
    choice,
    integer,
    parse_host_port,
    split_list,
)

__all__ = ["MOST_PROXIES", "ProxyServer", "SourceSettings"]

ProxyServer = HostPort | str

#: Proxies of one source: each gets its share of one connect deadline.
MOST_PROXIES = 16

_PASSWORD = re.compile(r"(password=)(?:\\+.|[^:\\])*", re.IGNORECASE)


def _mask_passwords(text: str) -> str:
    """Hide the passwords in an endpoint string, also those of proxies nested in it."""
    return _PASSWORD.sub(r"\1********", text)


def _parse_template(text: str) -> EndpointTemplate:
    try:
        return EndpointTemplate.parse(text)
    except ValueError as error:
        raise ValueError(_mask_passwords(str(error))) from None


def _parse_endpoint(text: str) -> str:
    value = text.strip()
    if not _parse_template(value).needs_destination:
        raise ValueError("it does not lead to the destination ({host} and {port} stand for it)")
    return value


#: A Twisted client endpoint string with C{{host}} and C{{port}} for the destination.
ENDPOINT: SettingType[str] = SettingType(
    "client endpoint", _parse_endpoint, _mask_passwords, reveal=str
)


def _is_endpoint_string(text: str) -> bool:
    return re.match(r"[A-Za-z][A-Za-z0-9]*:(?!\d{1,5}$)", text) is not None


def _parse_proxy_server(text: str) -> ProxyServer:
    if _is_endpoint_string(text):
        if _parse_template(text).needs_destination:
            raise ValueError("the way to a proxy cannot depend on the destination ({host}, {port})")
        return text
    return parse_host_port(text)


def _parse_proxy_servers(text: str) -> tuple[ProxyServer, ...]:
    # In an endpoint string "\," is a comma, as "\:" is a colon.
    parts = re.split(r"(?<!\\),", text)
    items = [item.strip() for part in parts for item in part.split("\n") if item.strip()]
    if items and not all(part.strip() for part in parts):
        raise ValueError("there is nothing before or behind one of the commas")
    if len(items) < 2:
        return (_parse_proxy_server(items[0] if items else ""),)
    servers: list[ProxyServer] = []
    problems = []
    for number, item in enumerate(items, 1):
        try:
            server = _parse_proxy_server(item)
        except ValueError as error:
            words = str(error)
            if not _is_endpoint_string(item) and any(map(_is_endpoint_string, items)):
                # It may be the rest of a password with a comma in it: it is not quoted.
                words = "it is not HOST:PORT (a comma within an endpoint string is written \\,)"
            problems.append(f"proxy {number} of {len(items)}: {words}")
            continue
        if server in servers:
            problems.append(f"proxy {number} of {len(items)} is the same as an earlier one")
        servers.append(server)
    if len(items) > MOST_PROXIES:
        problems.append(f"{len(items)} proxies (at most {MOST_PROXIES})")
    if problems:
        raise ValueError("; ".join(problems))
    return tuple(servers)


#: Where proxies are: each a host and a port, or a Twisted client endpoint string.
PROXY_SERVERS: SettingType[tuple[ProxyServer, ...]] = SettingType(
    "list of HOST:PORT or client endpoints",
    _parse_proxy_servers,
    lambda value: ", ".join(_mask_passwords(str(server)) for server in value),
    reveal=lambda value: ", ".join(map(str, value)),
)


def _parse_addresses(text: str) -> tuple[IPAddress, ...]:
    items = split_list(text) or [""]
    addresses: list[IPAddress] = []
    for item in items:
        address = IP_ADDRESS.parse(item)
        if any(other.version == address.version for other in addresses):
            raise ValueError(
                f"{address} is another IPv{address.version} address (one of each family; "
                "a further one is a source of its own)"
            )
        addresses.append(address)
    return tuple(addresses)


#: An IPv4 address, an IPv6 address, or one of each.
ADDRESSES: SettingType[tuple[IPAddress, ...]] = SettingType(
    "IP address of each family",
    _parse_addresses,
    lambda value: ", ".join(map(str, value)),
)


@attrs.define(frozen=True)
class SourceSettings:
    """An egress source: one way out (KumoMTA's C{make_egress_source}).

    @ivar name: its name in pools, records and queues.
    """

    name: str
    socks5_proxy_server: tuple[ProxyServer, ...] | None = setting(
        PROXY_SERVERS,
        "The SOCKS5 proxy that mail leaves through; or several, of which one is used at a time "
        "(`proxy_selection`).",
        default=None,
    )
    socks5_proxy_source_address: tuple[IPAddress, ...] | None = setting(
        ADDRESSES,
        "The address that the SOCKS5 proxy must send from, or one of each family. It is asked for "
        "with KumoProxy's BIND; without it any compliant SOCKS5 server will do, and the proxy "
        "chooses.",
        default=None,
    )
    socks5_proxy_username: str | None = setting(
        TEXT, "The login at the SOCKS5 proxy (RFC 1929).", default=None
    )
    socks5_proxy_password: str | None = setting(
        SECRET, "The password at the SOCKS5 proxy.", default=None
    )
    ha_proxy_server: tuple[ProxyServer, ...] | None = setting(
        PROXY_SERVERS,
        "The HAProxy (its `accept-proxy` port) that mail leaves through; or several, of which one "
        "is used at a time (`proxy_selection`).",
        default=None,
    )
    ha_proxy_source_address: tuple[IPAddress, ...] | None = setting(
        ADDRESSES,
        "The address that HAProxy must send from, or one of each family.",
        default=None,
    )
    ha_proxy_tlvs: tuple[HeaderFact, ...] = setting(
        HEADER_FACTS,
        "What else HAProxy is told of each connection, for its log and its rules: `unique-id` "
        "(the `session_id` of the delivery records), `authority` (the name of the destination's "
        "host; `authority=NAME` for another), `alpn=NAME`.",
        default=(),
    )
    source_address: tuple[IPAddress, ...] | None = setting(
        ADDRESSES,
        "The local address to send from, or one of each family; with a proxy, the local address "
        "of the connection to the proxy.",
        default=None,
    )
    endpoint: str | None = setting(
        ENDPOINT,
        "Any other way out: a Twisted client endpoint string in which `{host}` and `{port}` stand "
        "for the destination.",
        default=None,
    )
    proxy_selection: str = setting(
        choice("ordered", "balanced"),
        "Which of several proxies is tried first: the first one that works, or one after the "
        "other in turn.",
        default="ordered",
    )
    verify_source_address: bool = setting(
        BOOLEAN,
        "Whether a SOCKS5 proxy must confirm the source address that was asked for; `no` for a "
        "proxy behind NAT that reports a translated one.",
        default=True,
    )
    suspend_when_proxy_unhealthy: Suspension | None = setting(
        SUSPENSION,
        "When failures of the proxy (it cannot be reached, hangs, refuses the login or the source "
        "address) suspend the source, and for how long: `10m`, or `3/5m for 10m` for three "
        "failures within five minutes.",
        default=None,
        default_doc="the first failure, for 5s; doubled each time up to 5m",
    )
    suspend_when_unplumbed: Suspension | None = setting(
        SUSPENSION,
        "The same for a `source_address` that this machine does not have.",
        default=None,
        default_doc="the first failure, for 5s; doubled each time up to 5m",
    )
    remote_port: int | None = setting(
        integer(1, 65535),
        "The port to connect to, whatever a route or `smtp_port` says.",
        default=None,
    )
    ehlo_domain: str | None = setting(
        HOST_NAME,
        "The name that this source greets with, unless the path names one; the node's `hostname` "
        "otherwise.",
        default=None,
    )

    def problems(self) -> Iterator[Problem]:
        """What does not fit together."""
        yield from self._ways_out()
        yield from self._halves()
        yield from self._logins()
        yield from self._unusable_addresses()
        yield from self._local_addresses()

    def _ways_out(self) -> Iterator[Problem]:
        ways = [
            key
            for key in ("socks5_proxy_server", "ha_proxy_server", "endpoint")
            if getattr(self, key) is not None
        ]
        if len(ways) > 1:
            yield Problem(
                (ways[1], *ways),
                f"a source has one way out, and {ways[0]} is another (one of them)",
            )
        if self.endpoint is not None and self.source_address is not None:
            yield Problem(
                ("source_address", "endpoint"),
                "has no effect on an endpoint (bindAddress in the endpoint string)",
            )

    def _halves(self) -> Iterator[Problem]:
        if self.socks5_proxy_server is None:
            for key in (
                "socks5_proxy_source_address",
                "socks5_proxy_username",
                "socks5_proxy_password",
            ):
                if getattr(self, key) is not None:
                    yield Problem(
                        (key, "socks5_proxy_server"),
                        "there is no proxy to use it with (socks5_proxy_server = HOST:PORT)",
                    )
        if self.ha_proxy_source_address is not None and self.ha_proxy_server is None:
            yield Problem(
                ("ha_proxy_source_address", "ha_proxy_server"),
                "there is no proxy to use it with (ha_proxy_server = HOST:PORT)",
            )
        if self.ha_proxy_tlvs and self.ha_proxy_server is None:
            yield Problem(
                ("ha_proxy_tlvs", "ha_proxy_server"),
                "there is no HAProxy to tell (ha_proxy_server = HOST:PORT)",
            )
        if self.ha_proxy_server is not None and self.ha_proxy_source_address is None:
            yield Problem(
                ("ha_proxy_server", "ha_proxy_source_address"),
                "HAProxy must be told which address to send from (ha_proxy_source_address = ADDR)",
            )

    def _logins(self) -> Iterator[Problem]:
        if self.socks5_proxy_password is not None and self.socks5_proxy_username is None:
            yield Problem(
                ("socks5_proxy_password", "socks5_proxy_username"),
                "a password needs a user (socks5_proxy_username = NAME)",
            )
        if self.socks5_proxy_username is not None and self.socks5_proxy_password is None:
            yield Problem(
                ("socks5_proxy_username", "socks5_proxy_password"),
                "a user needs a password (socks5_proxy_password = file:PATH)",
            )
        for key in ("socks5_proxy_username", "socks5_proxy_password"):
            value: str | None = getattr(self, key)
            if value is not None and len(value.encode()) > 255:
                yield Problem((key,), "is too long for SOCKS5 (at most 255 bytes)")

    def _unusable_addresses(self) -> Iterator[Problem]:
        for key in ("socks5_proxy_source_address", "ha_proxy_source_address", "source_address"):
            addresses: tuple[IPAddress, ...] = getattr(self, key) or ()
            for address in addresses:
                if address.is_unspecified or address.is_multicast:
                    yield Problem(
                        (key,), f"nothing can be sent from {address} (an address of a host)"
                    )

    def _local_addresses(self) -> Iterator[Problem]:
        """The local end of the connections to proxies: each proxy must be reachable from it."""
        local = self.source_address
        if local is None:
            return
        for key in ("socks5_proxy_server", "ha_proxy_server"):
            servers: tuple[ProxyServer, ...] = getattr(self, key) or ()
            for server in servers:
                problem = _unreachable(server, local, key)
                if problem:
                    yield Problem(("source_address", key), problem)


def _unreachable(server: ProxyServer, local: tuple[IPAddress, ...], key: str) -> str:
    """Why a proxy cannot be reached from the local addresses; empty if nothing speaks against."""
    if isinstance(server, str):
        return f"has no effect on {key} as an endpoint string (bindAddress in that string)"
    try:
        address = ipaddress.ip_address(server.host)
    except ValueError:
        if len(local) == 1:
            return ""
        return f"which of them leads to the proxy {server} cannot be told (one address)"
    if any(mine.version == address.version for mine in local):
        return ""
    shown = " or ".join(map(str, local))
    return f"the proxy {server} cannot be reached from {shown} (an IPv{address.version} address)"
