"""The types of settings, under one roof: import them from here.

Every C{parse} raises L{ValueError} whose message says what is wrong and what would be right;
C{parse(render(value)) == value} holds for every type but L{SECRET}.
"""

from kumotwist.settings.addresses import (
    DOMAIN,
    HOST_NAME,
    HOST_PORT,
    IP_ADDRESS,
    NETWORKS,
    PORTS,
    SERVER_ENDPOINT,
    HostPort,
    IPAddress,
    IPNetwork,
    PortRange,
    parse_domain,
    parse_host_port,
    parse_server_endpoint,
)
from kumotwist.settings.kind import SettingType, list_of, split_list
from kumotwist.settings.numbers import (
    DURATION,
    RATE,
    SIZE,
    Rate,
    duration,
    integer,
    parse_count,
    parse_duration,
    parse_rate,
    parse_size,
    render_duration,
    render_rate,
    render_size,
)
from kumotwist.settings.words import BOOLEAN, READABLE_FILE, SECRET, TEXT, Secret, choice

__all__ = [
    "BOOLEAN",
    "DOMAIN",
    "DURATION",
    "HOST_NAME",
    "HOST_PORT",
    "IP_ADDRESS",
    "NETWORKS",
    "PORTS",
    "RATE",
    "READABLE_FILE",
    "SECRET",
    "SERVER_ENDPOINT",
    "SIZE",
    "TEXT",
    "HostPort",
    "IPAddress",
    "IPNetwork",
    "PortRange",
    "Rate",
    "Secret",
    "SettingType",
    "choice",
    "duration",
    "integer",
    "list_of",
    "parse_count",
    "parse_domain",
    "parse_duration",
    "parse_host_port",
    "parse_rate",
    "parse_server_endpoint",
    "parse_size",
    "render_duration",
    "render_rate",
    "render_size",
    "split_list",
]
