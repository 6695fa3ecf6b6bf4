"""The arguments of one endpoint string, and what may stand in them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from attrs import define

from kumotwist.endpoints.addresses import parse_destination
from kumotwist.endpoints.strings import HOST, PORT, placeholders
from kumotwist.settings.types import BOOLEAN

__all__ = ["Arguments", "Target", "check_host", "check_port"]


class Arguments:
    """The arguments of one endpoint string, taken one by one; what is left over is an error."""

    def __init__(self, positional: Sequence[str], named: Mapping[str, str]) -> None:
        self._positional = list(positional)
        self._named = dict(named)
        self._known: list[str] = []
        self._secret = "password" in named

    def take(self, name: str, *, positional: bool = False) -> str | None:
        """The argument of that name, or the next by position."""
        self._known.append(name)
        if name in self._named:
            return self._named.pop(name)
        return self._positional.pop(0) if positional and self._positional else None

    def require(self, name: str, example: str, *, positional: bool = False) -> str:
        """The same for an argument that must be there."""
        value = self.take(name, positional=positional)
        if not value:
            raise ValueError(f"{name}: missing (such as {example})")
        return value

    def seconds(self, name: str, default: float) -> float:
        """A number of seconds above 0."""
        value = self.take(name)
        if value is None:
            return default
        try:
            seconds = float(value)
        except ValueError:
            seconds = 0.0
        if not 0 < seconds < float("inf"):
            raise ValueError(f"{name}: {value[:32]!r} is not a number of seconds above 0")
        return seconds

    def boolean(self, name: str, default: bool) -> bool:
        """Yes or no."""
        value = self.take(name)
        if value is None:
            return default
        try:
            return BOOLEAN.parse(value)
        except ValueError:
            raise ValueError(f"{name}: {value[:32]!r} is neither yes nor no") from None

    def finish(self) -> None:
        """Raise L{ValueError} for arguments that nobody took; their values are not quoted."""
        if self._positional:
            raise ValueError(
                f"{len(self._positional)} argument(s) too many; a colon within a value is "
                "written as \\:"
            )
        for name in self._named:
            near = difflib.get_close_matches(name, self._known, 1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            # With a password in the string, a strange name may be a part of it.
            shown = "an argument" if self._secret else f"argument {name[:32]!r}"
            raise ValueError(f"{shown} is unknown{hint}; known are {', '.join(self._known)}")


def check_port(text: str) -> str:
    """Refuse what is neither a port nor its placeholder."""
    if text == PORT or (text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= 65535):
        return text
    raise ValueError(f"port: {text[:32]!r} is not between 1 and 65535")


def check_host(text: str) -> str:
    """Refuse what is neither an IP address nor a host name nor the placeholder."""
    if text != HOST:
        if placeholders(text):
            raise ValueError(f"host: {HOST} must stand alone")
        parse_destination(text, 1)
    return text


@define(frozen=True)
class Target:
    """Host and port, each a literal or a placeholder."""

    host: str
    port: str

    @classmethod
    def take(cls, arguments: Arguments) -> Target:
        """Take both, by position or by name."""
        host = check_host(arguments.require("host", "192.0.2.1", positional=True))
        return cls(host, check_port(arguments.require("port", "25", positional=True)))

    def of(self, host: str, port: int) -> tuple[str, int]:
        """Both, with the destination in the place of the placeholders."""
        return (
            host if self.host == HOST else self.host,
            port if self.port == PORT else int(self.port),
        )

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
