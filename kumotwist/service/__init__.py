"""The only place that knows everything: builds a running node from a configuration."""

from kumotwist.service.node import Node
from kumotwist.service.signals import obey_signals
from kumotwist.service.standalone import proxy_services, standalone_proxies, standalone_sink
from kumotwist.service.supervisor import Supervisor
from kumotwist.service.worker import Worker

__all__ = [
    "Node",
    "Supervisor",
    "Worker",
    "obey_signals",
    "proxy_services",
    "standalone_proxies",
    "standalone_sink",
]
