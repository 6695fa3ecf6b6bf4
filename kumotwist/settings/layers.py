"""Settings that are chosen by pattern and merged key by key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher
from typing import Any, Generic, Self, TypeVar

import attrs

__all__ = ["Rule", "RuleTable", "refuse_misspelt_default"]

_Pattern = TypeVar("_Pattern")
_Settings = TypeVar("_Settings")

_MAX_MERGED = 10_000


def refuse_misspelt_default(word: str) -> None:
    """Refuse a pattern that is nearly C{default}: it would silently be a domain.

    @raise ValueError: if it is nearly, but not quite, that word.
    """
    if word != "default" and SequenceMatcher(None, word, "default").ratio() > 0.75:
        raise ValueError(f"{word!r} is no domain (did you mean default?)")


@attrs.define(frozen=True)
class Rule(Generic[_Pattern]):
    """What holds for the names that match a pattern.

    @ivar pattern: the pattern; its C{str} is how it is written.
    @ivar values: the attributes that this rule sets, and no others.
    """

    pattern: _Pattern
    values: Mapping[str, Any]


class RuleTable(Generic[_Pattern, _Settings]):
    """The rules of one kind over the defaults.

    @ivar default: the settings of a name that no rule matches.
    @ivar rules: the rules, the least specific first.
    """

    def __init__(self, default: _Settings, rules: Iterable[Rule[_Pattern]]) -> None:
        """Keep the rules; the caller has sorted them."""
        self.default = default
        self.rules: tuple[Rule[_Pattern], ...] = tuple(rules)
        self._merged: dict[tuple[int, ...], _Settings] = {(): default}

    def merge(self, chosen: tuple[int, ...]) -> _Settings:
        """The default with the values of some rules over it.

        The same choice gives the same object, so that names by the million share a few settings.

        @param chosen: positions in C{rules}; where rules set the same key the last one wins.
        """
        settings = self._merged.get(chosen)
        if settings is None:
            values: dict[str, Any] = {}
            for position in chosen:
                values.update(self.rules[position].values)
            if len(self._merged) >= _MAX_MERGED:
                self._merged = {(): self.default}
            default: Any = self.default
            settings = self._merged[chosen] = attrs.evolve(default, **values)
        return settings

    def adopt(self, other: Self) -> None:
        """Hold what another table holds: whoever knows this one goes by that from now on."""
        vars(self).update(vars(other))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, type(self)):
            return NotImplemented
        return (self.default, self.rules) == (other.default, other.rules)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self.rules)} rules>"
