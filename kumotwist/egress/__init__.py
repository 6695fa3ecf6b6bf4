"""Where mail leaves from: sources, the pools that choose among them, paths and health.

An *egress source* is one way out: a local address, a SOCKS5 proxy or an HAProxy with an address
of its own, or any client endpoint. An *egress pool* spreads mail over sources by weight. A *path*
says how a site is spoken to from a source. The words are KumoMTA's.
"""

from kumotwist.egress.health import SourceHealth
from kumotwist.egress.rotation import Rotation, Rotations
from kumotwist.egress.source import Source

__all__ = ["Rotation", "Rotations", "Source", "SourceHealth"]
