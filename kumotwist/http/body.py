"""Bodies of requests: bounded, JSON objects, every field checked by name and kind."""

from __future__ import annotations

import io
import json
from typing import Any, TypeVar, cast

from twisted.web.server import Request

__all__ = ["MAX_BODY", "BadRequest", "BoundedRequest", "Fields", "check_text", "read_object"]

#: Octets that a request's body may have.
MAX_BODY = 1024 * 1024

_T = TypeVar("_T")


class BadRequest(Exception):
    """What was asked cannot be done.

    @ivar code: the status that says so.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class BoundedRequest(Request):
    """A request that keeps no more than L{MAX_BODY} octets of its body, in memory.

    Twisted would keep any number, large ones in a file, before anybody is asked whether the client
    is trusted.
    """

    too_long = False

    def gotLength(self, length: int | None) -> None:
        """The header has come; C{length} octets will follow it."""
        self.content = io.BytesIO()
        self.too_long = length is not None and length > MAX_BODY

    def handleContentChunk(self, data: bytes) -> None:
        """A piece of the body has come."""
        assert self.content is not None
        if self.too_long or self.content.tell() + len(data) > MAX_BODY:
            self.too_long = True
        else:
            self.content.write(data)


def read_object(request: Request) -> Fields:
    """A request's body, which must be a JSON object.

    @raise BadRequest: if it is not.
    """
    if getattr(request, "too_long", False):
        raise BadRequest(413, f"the body is longer than {MAX_BODY} octets")
    assert request.content is not None
    request.content.seek(0)
    try:
        value = json.loads(request.content.read())
    except (ValueError, RecursionError):
        raise BadRequest(400, "the body is not JSON") from None
    if not isinstance(value, dict):
        raise BadRequest(422, "the body is not a JSON object")
    return Fields(value)


class Fields:
    """The fields of an object, each taken once."""

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = dict(values)

    def take(self, name: str, kind: type[_T], default: Any = None) -> Any:
        """A field; C{null} is as if it were not there.

        @raise BadRequest: if it is of another kind.
        """
        value = self._values.pop(name, None)
        if value is None:
            return default
        if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
            words = {str: "a text", bool: "true or false", list: "a list", dict: "an object"}
            raise BadRequest(422, f"{name}: is not {words[cast('type', kind)]}")
        if isinstance(value, str):
            check_text(name, value)
        return value

    def choice(self, name: str) -> str | None:
        """A text that chooses; L{None} if it is not there.

        @raise BadRequest: if it is empty, which would choose everything.
        """
        value: str | None = self.take(name, str)
        if value is not None and not value.strip():
            raise BadRequest(422, f"{name}: is empty; leave it out if it is not asked about")
        return value

    def choices(self, name: str) -> list[str] | None:
        """A list of texts that chooses; L{None} if it is not there.

        @raise BadRequest: if it, or a text in it, is empty.
        """
        if self._values.get(name) is None:
            self._values.pop(name, None)
            return None
        values = self.texts(name)
        if not values or not all(value.strip() for value in values):
            raise BadRequest(422, f"{name}: is empty; leave it out if it is not asked about")
        return values

    def need(self, name: str) -> str:
        """A text that must be there.

        @raise BadRequest: if it is not, or empty.
        """
        value: str = self.take(name, str, "")
        if not value.strip():
            raise BadRequest(422, f"{name}: is missing")
        return value

    def texts(self, name: str) -> list[str]:
        """A list of texts; empty if it is not there."""
        values: list[Any] = self.take(name, list, [])
        if not all(isinstance(value, str) for value in values):
            raise BadRequest(422, f"{name}: is not a list of texts")
        for value in values:
            check_text(name, value)
        return values

    def end(self) -> None:
        """Nothing else may be there.

        @raise BadRequest: if there is something.
        """
        if self._values:
            raise BadRequest(422, f"unknown field {min(self._values)!r}")


def check_text(name: str, value: str) -> None:
    """See that a text can be written as UTF-8.

    @raise BadRequest: if it cannot: it has half of a surrogate pair.
    """
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise BadRequest(422, f"{name}: has half of a surrogate pair") from None
