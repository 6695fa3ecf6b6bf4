"""What a type of settings is: text to value, value to text, a word for the reference page.

Every C{parse} raises L{ValueError} whose message says what is wrong and what would be right.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = [
    "SettingType",
    "at_least_one",
    "list_of",
    "split_list",
]

_T = TypeVar("_T")


class SettingType(Generic[_T]):
    """How one type of setting is read, written and described.

    @ivar name: what the reference page calls it, such as C{duration}.
    @ivar parse: reads the text; raises L{ValueError}.
    @ivar render: writes the value so that it can be read again; whatever is secret in it is
        masked, so the text may be shown and logged.
    @ivar secret: whether the whole value is a secret, which no message may contain.
    @ivar reveal: writes the value with its secrets, for a file that only its owner can read.
    """

    def __init__(
        self,
        name: str,
        parse: Callable[[str], _T],
        render: Callable[[_T], str] = str,
        *,
        secret: bool = False,
        reveal: Callable[[_T], str] | None = None,
    ) -> None:
        self.name = name
        self.parse = parse
        self.render = render
        self.secret = secret
        self.reveal = render if reveal is None else reveal

    def __repr__(self) -> str:
        return f"<setting type {self.name}>"


def split_list(text: str) -> list[str]:
    """The items of a list: separated by commas or line ends, blanks dropped."""
    return [item for item in (part.strip() for part in re.split(r"[,\n]", text)) if item]


def list_of(kind: SettingType[_T]) -> SettingType[tuple[_T, ...]]:
    """Items of another type, separated by commas or line ends."""

    def parse(text: str) -> tuple[_T, ...]:
        return tuple(kind.parse(item) for item in split_list(text))

    def render(value: tuple[_T, ...]) -> str:
        return ", ".join(kind.render(item) for item in value)

    def reveal(value: tuple[_T, ...]) -> str:
        return ", ".join(kind.reveal(item) for item in value)

    return SettingType(
        f"list of {kind.name}s",
        parse,
        render,
        secret=kind.secret,
        reveal=None if kind.reveal is kind.render else reveal,
    )


def at_least_one(kind: SettingType[tuple[_T, ...]]) -> SettingType[tuple[_T, ...]]:
    """A list that must have an item, for keys whose absence means "any".

    What is written empty there was meant to be filled, or to mean nobody; taking it for anybody
    would open what it was written to close.
    """

    def parse(text: str) -> tuple[_T, ...]:
        items = kind.parse(text)
        if not items:
            raise ValueError("the value is empty (leave the key out if anything may match)")
        return items

    return SettingType(kind.name, parse, kind.render, secret=kind.secret, reveal=kind.reveal)
