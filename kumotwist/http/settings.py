"""What can be configured about the HTTP listener."""

from __future__ import annotations

import ipaddress

import attrs

from kumotwist.settings import setting
from kumotwist.settings.types import NETWORKS, SECRET, SERVER_ENDPOINT, IPNetwork

__all__ = ["HTTPSettings"]


@attrs.define(frozen=True)
class HTTPSettings:
    """The HTTP listener: injection, administration, metrics."""

    listen: str = setting(
        SERVER_ENDPOINT,
        "Where it listens: ADDR:PORT or a Twisted server endpoint string.",
        default="tcp:8000:interface=127.0.0.1",
    )
    token: str | None = setting(
        SECRET,
        "What clients must show, the `kumo` command too (`KUMO_TOKEN`): `Authorization: Bearer "
        "TOKEN`. Without it whoever may connect from `trusted_hosts` may do everything.",
        default=None,
    )
    trusted_hosts: tuple[IPNetwork, ...] = setting(
        NETWORKS,
        "Who may use it; nobody else can.",
        default=tuple(ipaddress.ip_network(text) for text in ("127.0.0.0/8", "::1")),
    )
