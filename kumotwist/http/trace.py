"""C{GET /api/trace/v1}: the life of messages as it happens, one JSON object a line.

The first line is C{{"event": "watching"}}: whatever happens after it is reported. The stream ends
when the client goes away. A client that does not keep up misses events and is told so.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from kumotwist.journal.trace import TooManyWatchersError, Trace, TraceEvent

__all__ = ["TraceResource"]


class TraceResource(Resource):
    """Streams the trace.

    @param trace: where the events come from.
    """

    isLeaf = True

    def __init__(self, trace: Trace) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._trace = trace

    def render_GET(self, request: Request) -> Any:
        """Stream until the client goes away."""
        request.setHeader(b"content-type", b"application/x-ndjson")
        if request.method == b"HEAD":
            return b""
        watcher = _Watcher(request)
        try:
            unsubscribe = self._trace.subscribe(watcher.happened)
        except TooManyWatchersError as error:
            request.setResponseCode(503)
            request.setHeader(b"content-type", b"application/json")
            return json.dumps({"error": str(error)}).encode() + b"\n"
        request.notifyFinish().addBoth(lambda _: unsubscribe())
        watcher.start()
        return NOT_DONE_YET


class _Watcher:
    """One client of the stream; a push producer only to learn whether it keeps up."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._paused = False
        self._missed = 0

    def start(self) -> None:
        """Say that watching has begun."""
        self._request.registerProducer(self, True)
        self._send({"event": "watching"})

    def happened(self, event: TraceEvent) -> None:
        """Send an event."""
        self._send(
            {**event.facts, "event": event.event, "time": event.time, "ids": event.message_ids}
        )

    def _send(self, event: dict[str, Any]) -> None:
        if self._paused:
            self._missed += 1
            return
        # What JSON does not know is shown as text: an event must not end the stream.
        self._request.write(json.dumps(event, default=str).encode() + b"\n")

    def pauseProducing(self) -> None:
        """The client reads too slowly."""
        self._paused = True

    def resumeProducing(self) -> None:
        """The client has caught up."""
        self._paused = False
        if self._missed:
            missed, self._missed = self._missed, 0
            self._send({"event": "missed", "count": missed})

    def stopProducing(self) -> None:
        """The client is gone."""
        self._paused = True
