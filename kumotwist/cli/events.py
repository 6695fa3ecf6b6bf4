"""What happens in a node, for people: its live trace, read over HTTP and told in words."""

from __future__ import annotations

import http.client
import json
import os
import socket
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

__all__ = ["Stream", "clean", "credentials", "describe", "parse_endpoint"]

#: Octets of a line of the stream; an event has a few hundred.
MAX_LINE = 65536


def clean(text: object) -> str:
    """Text from elsewhere, fit for a terminal: nothing in it moves the cursor or ends the line."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii")
        for each in str(text)
    )


def parse_endpoint(text: str) -> str:
    """Read where a node's HTTP listener is: C{http://HOST:PORT} or C{HOST:PORT}.

    @return: C{HOST:PORT}.
    @raise ValueError: if it is neither.
    """
    wrong = f"{text!r} is not http://HOST:PORT (such as http://127.0.0.1:8000)"
    parts = urlsplit(text if "://" in text else f"http://{text}")
    beyond = parts.path.strip("/") or parts.query or parts.fragment or parts.username
    if parts.scheme != "http" or not parts.hostname or beyond:
        raise ValueError(wrong)
    return f"{parts.netloc}" if parts.port else f"{parts.netloc}:80"


def credentials() -> dict[str, str]:
    """The header that shows the node's token, which C{KUMO_TOKEN} has if it wants one."""
    token = os.environ.get("KUMO_TOKEN")
    return {"Authorization": f"Bearer {token}"} if token else {}


class Stream:
    """A node's live trace.

    @param endpoint: where its C{[http]} listener is, see L{parse_endpoint}.
    @ivar ended: why there are no more events, in words; empty while nothing is wrong.
    @raise OSError: if it cannot be watched.
    @raise http.client.HTTPException: likewise.
    """

    def __init__(self, endpoint: str) -> None:
        self.ended = ""
        connection = http.client.HTTPConnection(parse_endpoint(endpoint), timeout=5)
        connection.connect()
        # The connection forgets its socket when the answer has no length of its own.
        self._socket: socket.socket = connection.sock
        connection.request("GET", "/api/trace/v1", headers=credentials())
        self._response = connection.getresponse()
        if self._response.status != 200:
            words = clean(self._response.read(500).decode("utf-8", "replace").strip())
            raise OSError(f"status {self._response.status}: {words}")
        first = _event(self._response.readline(MAX_LINE))
        if first is None or first["event"] != "watching":
            raise OSError("this is not kumotwist's trace")

    def events(self, deadline: float) -> Iterator[dict[str, Any]]:
        """Every event until the deadline (of C{time.monotonic}), or until the stream ends.

        Each has C{event}, a text, and C{ids}, a list of texts. Lines that are no event are passed
        over.
        """
        while (left := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                line = self._response.readline(MAX_LINE)
            except TimeoutError:
                return
            except (OSError, http.client.HTTPException) as failure:
                self.ended = f"the node's trace broke off: {failure!r}"
                return
            if not line:
                self.ended = "the node's trace has ended"
                return
            event = _event(line)
            if event is not None:
                yield event


def _event(line: bytes) -> dict[str, Any] | None:
    """An event, as far as it is one."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        return None
    ids = event.get("ids")
    event["ids"] = [each for each in ids if isinstance(each, str)] if isinstance(ids, list) else []
    return event


class _Facts(dict[str, str]):
    """An event's facts as texts for a terminal, with a question mark for what was not told."""

    def __init__(self, event: dict[str, Any]) -> None:
        super().__init__((key, clean(value)) for key, value in event.items() if value is not None)

    def __missing__(self, key: str) -> str:
        return "?"


def describe(event: dict[str, Any]) -> str:
    """One event in words; empty for one that tells people nothing."""
    facts = _Facts(event)
    way = "directly"
    if facts.get("protocol"):
        foreign = facts["protocol"] == "endpoint"
        server = f'"{facts["server"]}"' if foreign else facts["server"]
        way = f"through {facts['protocol']} {server}"
    recipient = facts["recipient"]
    match event["event"]:
        case "reception":
            ids = ", ".join(map(clean, event.get("ids") or "?"))
            return f"received   {ids} for {recipient}, {facts['size']} octets, on disk"
        case "queued":
            return f"queued     for site {facts['site']}, source {facts['source']} ({way})"
        case "connecting":
            return f"connecting to {facts['target']} {way}"
        case "connected":
            tls = facts.get("tls") or "not encrypted"
            leaving = facts.get("source_address")
            left = f", leaving from {leaving}" if leaving else ""
            return f"connected  to {facts['target']} {way}{left}; {tls}"
        case "sending":
            return f"sending    to {facts['host']}"
        case "failed":
            return f"failed     at {facts['target']}: {facts['reply']}"
        case "delivery":
            return f"delivered  to {recipient} at {facts['host']}: {facts['reply']}"
        case "bounce" | "adminbounce":
            return f"bounced    {recipient}: {facts['reply']}"
        case "expiration":
            return f"expired    {recipient}: {facts['reply']}"
        case "transientfailure":
            return f"not yet    {recipient}: {facts['reply']}"
        case "adminrebind":
            return f"moved      {recipient}: {facts['reply']}"
        case "delayed":
            return f"waiting    {recipient}: {facts['reply']}"
        case "missed":
            return f"({facts['count']} events were missed)"
    return ""
