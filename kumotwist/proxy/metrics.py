"""What proxies have counted, as Prometheus reads it, under KumoMTA's names where it has them.

The labels are the listener's name and the REP code: never an address, of which there is no end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from kumotwist.proxy.counters import ProxyCounters
from kumotwist.proxy.service import ProxyService
from kumotwist.wire.socks5.format import Rep

__all__ = ["render_metrics"]

_FAMILIES: tuple[tuple[str, str, str, Callable[[ProxyCounters], int]], ...] = (
    ("proxy_connections_accepted_total", "counter", "clients that connected",
     lambda counters: counters.accepted),
    ("proxy_connections_failed_total", "counter", "sessions without a connection to a destination",
     lambda counters: counters.failed),
    ("proxy_connections_completed_total", "counter", "sessions that relayed and have ended",
     lambda counters: counters.completed),
    ("proxy_active_connections", "gauge", "clients that are connected",
     lambda counters: counters.active),
    ("proxy_bytes_client_to_dest_total", "counter", "octets relayed from clients",
     lambda counters: counters.bytes_to_destination),
    ("proxy_bytes_dest_to_client_total", "counter", "octets relayed from destinations",
     lambda counters: counters.bytes_to_client),
    ("proxy_outbound_connections_total", "counter", "connections made to destinations",
     lambda counters: counters.outbound),
    ("proxy_tls_handshake_failures_total", "counter", "TLS handshakes of clients that failed",
     lambda counters: counters.tls_failures),
    ("proxy_logins_refused_total", "counter", "logins that were refused",
     lambda counters: counters.logins_refused),
    ("proxy_connections_turned_away_total", "counter", "clients beyond the limits",
     lambda counters: counters.turned_away),
)  # fmt: skip


def _label(value: str) -> str:
    """A label's value, escaped as the text format wants it."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def render_metrics(services: Iterable[ProxyService]) -> str:
    """Write the counters of some proxies in Prometheus' text format (version 0.0.4)."""
    listeners = [(_label(service.name or ""), service.counters) for service in services]
    lines = []
    for family, kind, text, count in _FAMILIES:
        lines += [f"# HELP {family} {text}", f"# TYPE {family} {kind}"]
        lines += [f'{family}{{listener="{name}"}} {count(one)}' for name, one in listeners]
    family = "proxy_requests_refused_total"
    lines += [f"# HELP {family} requests refused, by REP code", f"# TYPE {family} counter"]
    for name, counters in listeners:
        lines += [
            f'{family}{{listener="{name}",rep="{rep:02d}"}} {counters.refusals.get(rep, 0)}'
            for rep in Rep
            if rep is not Rep.SUCCEEDED
        ]
    return "\n".join(lines) + "\n"
