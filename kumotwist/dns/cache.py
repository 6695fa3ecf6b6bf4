"""Answers that are still good."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

__all__ = ["ExpiringCache"]

_T = TypeVar("_T")


class ExpiringCache(Generic[_T]):
    """Values with a time to live; beyond a size the one that was used least recently goes."""

    def __init__(self, size: int, seconds: Callable[[], float]) -> None:
        """@param size: how many are kept at most.
        @param seconds: tells the time.
        """
        self._size = size
        self._seconds = seconds
        self._entries: OrderedDict[Hashable, tuple[float, _T]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable) -> _T | None:
        """The value, unless it has expired."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry[0] <= self._seconds():
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return entry[1]

    def put(self, key: Hashable, value: _T, ttl: float) -> None:
        """Keep a value for C{ttl} seconds; not at all if that is no time."""
        if ttl <= 0:
            return
        self._entries[key] = (self._seconds() + ttl, value)
        self._entries.move_to_end(key)
        if len(self._entries) > self._size:
            self._entries.popitem(last=False)
