"""The types of settings: text to value, value to text, and words for the reference page.

Every C{parse} raises L{ValueError} whose message says what is wrong and what would be right.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Iterable
from typing import Generic, NamedTuple, TypeVar

__all__ = [
    "BOOLEAN",
    "DURATION",
    "HOST_PORT",
    "IP_ADDRESS",
    "NETWORKS",
    "PORTS",
    "RATE",
    "SECRET",
    "SERVER_ENDPOINT",
    "SIZE",
    "TEXT",
    "HostPort",
    "PortRange",
    "Rate",
    "SettingType",
    "choice",
    "integer",
    "list_of",
    "split_list",
]

_T = TypeVar("_T")

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


class SettingType(Generic[_T]):
    """How one type of setting is read, written and described.

    @ivar name: what the reference page calls it, such as C{duration}.
    @ivar secret: whether its value must be masked wherever it is shown.
    """

    def __init__(
        self,
        name: str,
        parse: Callable[[str], _T],
        render: Callable[[_T], str] = str,
        *,
        secret: bool = False,
    ) -> None:
        self.name = name
        self.parse = parse
        self.render = render
        self.secret = secret

    def __repr__(self) -> str:
        return f"<setting type {self.name}>"


def split_list(text: str) -> list[str]:
    """The items of a list: separated by commas or line ends, blanks dropped."""
    return [item for item in (part.strip() for part in re.split(r"[,\n]", text)) if item]


# -- numbers -------------------------------------------------------------------------------------


def parse_count(text: str) -> int:
    """Read a whole number as KumoMTA spells it: C{1000}, C{1,000} or C{1_000}."""
    if not re.fullmatch(r"\d+([,_]\d+)*", text.strip()):
        raise ValueError(f"{text!r} is not a whole number (such as 1000 or 1,000)")
    return int(text.replace(",", "").replace("_", ""))


def integer(minimum: int = 0, maximum: int | None = None) -> SettingType[int]:
    """A whole number within bounds, both included."""

    def parse(text: str) -> int:
        value = parse_count(text)
        if value < minimum or (maximum is not None and value > maximum):
            bounds = f"at least {minimum}" if maximum is None else f"{minimum} to {maximum}"
            raise ValueError(f"{value} is out of range ({bounds})")
        return value

    return SettingType("number", parse)


_UNITS = {
    "ms": 0.001,
    "s": 1, "sec": 1, "secs": 1, "second": 1, "seconds": 1,
    "m": 60, "min": 60, "mins": 60, "minute": 60, "minutes": 60,
    "h": 3600, "hr": 3600, "hrs": 3600, "hour": 3600, "hours": 3600,
    "d": 86400, "day": 86400, "days": 86400,
    "w": 604800, "week": 604800, "weeks": 604800,
}  # fmt: skip


def parse_duration(text: str) -> float:
    """Read C{30s}, C{20 minutes}, C{1h30m} or a bare number of seconds."""
    compact = text.strip().lower()
    if re.fullmatch(r"\d+(\.\d+)?", compact):
        return float(compact)
    if not re.fullmatch(r"(\d+(\.\d+)?\s*[a-z]+\s*)+", compact):
        raise ValueError(f"{text!r} is not a duration (such as 30s, 20m, 1h, 7d)")
    total = 0.0
    for amount, unit in re.findall(r"(\d+(?:\.\d+)?)\s*([a-z]+)", compact):
        if unit not in _UNITS:
            raise ValueError(f"unknown unit {unit!r} in {text!r} (ms, s, m, h, d or w)")
        total += float(amount) * _UNITS[unit]
    return total


def render_duration(value: float) -> str:
    """Write a duration in the largest unit that divides it."""
    if value != int(value):
        return f"{value:g}s"
    for unit, seconds in (("d", 86400), ("h", 3600), ("m", 60)):
        if value and value % seconds == 0:
            return f"{int(value // seconds)}{unit}"
    return f"{int(value)}s"


DURATION: SettingType[float] = SettingType("duration", parse_duration, render_duration)

_SIZES = {
    "": 1, "b": 1,
    "k": 1000, "kb": 1000, "m": 1000**2, "mb": 1000**2, "g": 1000**3, "gb": 1000**3,
    "kib": 1024, "mib": 1024**2, "gib": 1024**3,
}  # fmt: skip


def parse_size(text: str) -> int:
    """Read C{10MB}, C{64KiB} or a bare number of bytes."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    if match is None or match.group(2) not in _SIZES:
        raise ValueError(f"{text!r} is not a size (such as 10MB, 64KiB or 1048576)")
    return int(float(match.group(1)) * _SIZES[match.group(2)])


def render_size(value: int) -> str:
    """Write a size in the largest binary unit that divides it."""
    for unit, factor in (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if value and value % factor == 0:
            return f"{value // factor}{unit}"
    return str(value)


SIZE: SettingType[int] = SettingType("size", parse_size, render_size)


class Rate(NamedTuple):
    """So many events in a period (KumoMTA's throttle specification).

    @ivar events: how many are allowed in the period; at least 1.
    @ivar period: seconds.
    @ivar burst: how many may come at once; KumoMTA's default is C{events}.
    @ivar local: never shared with other nodes.
    """

    events: int
    period: float
    burst: int
    local: bool = False


def parse_rate(text: str) -> Rate:
    """Read C{100/s}, C{1,000/hour}, C{local:10/5m,max_burst=3}."""
    spec = text.strip()
    local = spec.startswith("local:")
    match = re.fullmatch(
        r"(\d+(?:[,_]\d+)*)\s*/\s*(\d*)\s*([a-zA-Z]+)(?:\s*,\s*max_burst\s*=\s*(\d+))?",
        spec.removeprefix("local:"),
    )
    unit = match.group(3).lower() if match else ""
    if match is None or unit not in _UNITS:
        raise ValueError(f"{text!r} is not a rate (such as 100/s, 1,000/hour or 10/5m)")
    count = parse_count(match.group(1))
    if count < 1:
        raise ValueError(f"{text!r}: the number of events must be at least 1")
    period = int(match.group(2) or 1) * float(_UNITS[unit])
    if period <= 0:
        raise ValueError(f"{text!r}: the period must be longer than nothing")
    return Rate(count, period, int(match.group(4)) if match.group(4) else count, local)


def render_rate(value: Rate) -> str:
    """Write a rate as it could be read again."""
    burst = "" if value.burst == value.events else f",max_burst={value.burst}"
    local = "local:" if value.local else ""
    return f"{local}{value.events}/{render_duration(value.period)}{burst}"


RATE: SettingType[Rate] = SettingType("rate", parse_rate, render_rate)


# -- words ---------------------------------------------------------------------------------------


def _parse_boolean(text: str) -> bool:
    word = text.strip().lower()
    if word in {"1", "yes", "true", "on"}:
        return True
    if word in {"0", "no", "false", "off"}:
        return False
    raise ValueError(f"{text!r} is neither yes nor no")


BOOLEAN: SettingType[bool] = SettingType(
    "boolean", _parse_boolean, lambda value: "yes" if value else "no"
)


def _parse_text(text: str) -> str:
    if not text.strip():
        raise ValueError("the value is empty")
    return text.strip()


TEXT: SettingType[str] = SettingType("text", _parse_text)


def choice(*words: str) -> SettingType[str]:
    """One of several words, whatever its case; the value is spelled as here."""
    by_folded = {word.lower(): word for word in words}

    def parse(text: str) -> str:
        try:
            return by_folded[text.strip().lower()]
        except KeyError:
            raise ValueError(f"{text!r} is none of {', '.join(words)}") from None

    return SettingType(f"one of {', '.join(f'`{word}`' for word in words)}", parse)


def _parse_secret(text: str) -> str:
    """Read a secret: literally, from C{file:PATH} or from C{env:NAME}.

    The messages never contain the secret.
    """
    value = text.strip()
    if value.startswith("file:"):
        path = value.removeprefix("file:")
        try:
            with open(path, encoding="utf-8") as stream:
                value = stream.read().rstrip("\r\n")
        except OSError as error:
            raise ValueError(f"cannot read the secret from {path!r}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ValueError(f"the secret in {path!r} is not UTF-8") from None
    elif value.startswith("env:"):
        name = value.removeprefix("env:")
        if name not in os.environ:
            raise ValueError(f"the environment has no variable {name!r}")
        value = os.environ[name]
    if not value:
        raise ValueError("the secret is empty")
    return value


SECRET: SettingType[str] = SettingType(
    "secret", _parse_secret, lambda value: "********", secret=True
)


# -- addresses -----------------------------------------------------------------------------------


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
            networks.append(ipaddress.ip_network(item.strip("[]"), strict=False))
        except ValueError:
            raise ValueError(
                f"{item!r} is neither an address nor a network (such as 10.0.0.0/8 or ::1)"
            ) from None
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
        if ":" not in value:
            raise ValueError(
                f"{text!r} is neither ADDR:PORT nor a server endpoint string "
                "(such as 127.0.0.1:2525 or tcp:2525:interface=127.0.0.1)"
            )
        return value
    v6, v4, port = match.groups()
    if not 0 <= int(port) <= 65535:
        raise ValueError(f"{text!r}: port {port} is not between 0 and 65535")
    if v6:
        escaped = str(ipaddress.IPv6Address(v6)).replace(":", "\\:")
        return f"tcp6:{port}:interface={escaped}"
    if v4 and v4[0].isdigit():
        v4 = str(ipaddress.IPv4Address(v4))
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


def list_of(kind: SettingType[_T]) -> SettingType[tuple[_T, ...]]:
    """Items of another type, separated by commas or line ends."""

    def parse(text: str) -> tuple[_T, ...]:
        return tuple(kind.parse(item) for item in split_list(text))

    def render(value: tuple[_T, ...]) -> str:
        return ", ".join(kind.render(item) for item in value)

    return SettingType(f"list of {kind.name}", parse, render, secret=kind.secret)
