"""What can be configured about the HTTP listener."""

from __future__ import annotations

import ipaddress

import attrs

from kumotwist.settings import setting
from kumotwist.settings.types import NETWORKS, SERVER_ENDPOINT, IPNetwork

__all__ = ["HTTPSettings"]


@attrs.define(frozen=True)
class HTTPSettings:
    """The HTTP listener: injection, administration, metrics."""

    listen: str = setting(
        SERVER_ENDPOINT,
        "Where it listens: ADDR:PORT or a Twisted server endpoint string.",
        default="tcp:8000:interface=127.0.0.1",
    )
    trusted_hosts: tuple[IPNetwork, ...] = setting(
        NETWORKS,
        "Who may use it without a password.",
        default=tuple(ipaddress.ip_network(text) for text in ("127.0.0.0/8", "::1")),
    )
