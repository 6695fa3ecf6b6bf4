"""The syntax of Twisted's endpoint strings: taking them apart, putting them together.

Arguments are separated by colons; a backslash takes the special meaning from the character behind
it. An argument with an equals sign has a name, the others count by position. A string within a
string is quoted once more at each level. C{twisted.internet.endpoints} keeps its own functions for
this private, and its quoting forgets the equals sign of positional arguments.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

__all__ = ["HOST", "PORT", "fill", "join_arguments", "placeholders", "split_arguments"]

#: What stands for the destination in a template.
HOST = "{host}"
PORT = "{port}"

_PLACEHOLDER = re.compile(r"\{[A-Za-z_]+\}")


def split_arguments(text: str) -> tuple[list[str], dict[str, str]]:
    """Take an endpoint string apart.

    @return: the positional arguments, the first being the prefix, and the named ones, unquoted.
    @raise ValueError: for a backslash at the end or an argument that is given twice; the message
        does not quote the text, which may hold a password.
    """
    positional: list[str] = []
    named: dict[str, str] = {}
    current: list[str] = []
    name: str | None = None
    characters = iter(text)
    for character in characters:
        if character == "\\":
            escaped = next(characters, None)
            if escaped is None:
                raise ValueError("a backslash at the end of an endpoint string quotes nothing")
            current.append(escaped)
        elif character == "=" and name is None:
            name, current = "".join(current), []
        elif character == ":":
            _add(positional, named, name, current)
            name, current = None, []
        else:
            current.append(character)
    _add(positional, named, name, current)
    return positional, named


def _add(
    positional: list[str], named: dict[str, str], name: str | None, current: list[str]
) -> None:
    if name is None:
        positional.append("".join(current))
    elif name in named:
        raise ValueError("an argument is given twice")
    else:
        named[name] = "".join(current)


def join_arguments(positional: Sequence[str], named: Mapping[str, str]) -> str:
    """Put an endpoint string together, quoting what must be quoted."""
    parts = [re.sub(r"[\\:=]", _quoted, argument) for argument in positional]
    parts += [name + "=" + re.sub(r"[\\:]", _quoted, value) for name, value in named.items()]
    return ":".join(parts)


def _quoted(match: re.Match[str]) -> str:
    return "\\" + match.group()


def placeholders(text: str) -> frozenset[str]:
    """The placeholders in a text.

    @raise ValueError: for one that is neither C{{host}} nor C{{port}}.
    """
    found = frozenset(_PLACEHOLDER.findall(text))
    unknown = found - {HOST, PORT}
    if unknown:
        raise ValueError(f"{min(unknown)} is unknown; only {HOST} and {PORT} are replaced")
    return found


def fill(text: str, host: str, port: int) -> str:
    """Put a destination into an argument of an endpoint string.

    An argument that is more than a placeholder is taken for an endpoint string itself, in which
    the colons of an IPv6 address must be quoted, at each of its levels.

    @param text: the argument, unquoted by one level.
    """
    if not placeholders(text):
        return text
    positional, named = split_arguments(text)
    if len(positional) + len(named) == 1:
        return text.replace(PORT, str(port)).replace(HOST, host)
    return join_arguments(
        [fill(argument, host, port) for argument in positional],
        {name: fill(value, host, port) for name, value in named.items()},
    )
