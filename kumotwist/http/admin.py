"""C{/api/admin}: inspecting and steering queues: KumoMTA's paths and shapes where it has any.

Beyond KumoMTA's fields, whoever POSTs may name C{ids} or a C{source}, ask with C{dry_run} what
would be touched, and with C{persist} let an order survive a restart.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred, maybeDeferred
from twisted.logger import Logger
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET, Request

from kumotwist.http.body import BadRequest, Fields, check_text, read_object
from kumotwist.interfaces import ISteering
from kumotwist.settings.types import parse_duration

__all__ = ["admin_pages"]

#: Seconds for which orders hold where nothing is said.
DEFAULT_DURATION = 300.0
#: Characters that a reason may have: it stands in every record that comes of it.
LONGEST_REASON = 1000
_TEXTS = ("campaign", "tenant", "domain", "routing_domain", "source")


class _JSONResource(Resource):
    """A leaf whose methods are coroutines that return what JSON can say."""

    isLeaf = True
    _log = Logger()

    def __init__(self, steering: ISteering) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # Answers may be late or not: maybeDeferred, which cannot say that by its types.
        self._steering: Any = steering

    def render(self, request: Request) -> Any:
        """Answer, also for what is wrong."""
        method = getattr(self, f"do_{request.method.decode('ascii', 'replace')}", None)
        answering = Deferred.fromCoroutine(self._answer(request, method))
        answering.addErrback(lambda failure: self._log.failure("answering failed", failure))
        return NOT_DONE_YET

    async def _answer(self, request: Request, method: Any) -> None:
        gone: list[Any] = []
        request.notifyFinish().addErrback(gone.append)
        code, answer = 200, {"error": ""}
        try:
            if method is None:
                raise BadRequest(405, "this method is not known here")
            answer = self._noting_missing(await ensureDeferred(method(request)))
        except BadRequest as error:
            code, answer = error.code, {"error": str(error)}
        except ValueError as error:
            code, answer = 422, {"error": str(error)}
        except OSError as error:
            code, answer = 503, {"error": f"it cannot be kept: {error}"}
        except Exception as error:
            self._log.failure("a request failed")
            code, answer = 500, {"error": type(error).__name__}
        if not gone:
            request.setResponseCode(code)
            request.setHeader(b"content-type", b"application/json")
            request.write(json.dumps(answer).encode() + b"\n")
            request.finish()

    def _noting_missing(self, answer: Any) -> Any:
        """Say in an answer (in each order of a list) which workers' queues it lacks, if any."""
        missing = list(self._steering.missing_workers())
        if missing:
            for each in answer if isinstance(answer, list) else [answer]:
                each["missing_workers"] = missing
        return answer


def _whom(fields: Fields) -> dict[str, Any]:
    whom: dict[str, Any] = {name: fields.choice(name) for name in _TEXTS}
    whom["queue_names"] = fields.choices("queue_names")
    whom["ids"] = fields.choices("ids")
    return {name: value for name, value in whom.items() if value is not None}


def _reason(fields: Fields, dry_run: bool) -> str:
    """Why; a dry run needs no reason."""
    reason: str = fields.take("reason", str, "") if dry_run else fields.need("reason")
    if len(reason) > LONGEST_REASON:
        raise BadRequest(422, f"reason: is longer than {LONGEST_REASON} characters")
    return reason


def _expires(fields: Fields) -> float:
    duration, moment = fields.take("duration", str), fields.take("expires", str)
    if moment is not None:
        try:
            return datetime.fromisoformat(moment).timestamp()
        except (ValueError, OverflowError):
            raise BadRequest(422, f"expires: {moment!r} is not a moment") from None
    try:
        seconds = DEFAULT_DURATION if duration is None else parse_duration(duration)
    except ValueError as error:
        raise BadRequest(422, f"duration: {error}") from None
    return time.time() + seconds


async def _dry_run(steering: ISteering, whom: dict[str, Any]) -> dict[str, Any]:
    matched = await steering.count(whom)
    return {"dry_run": True, "matched": matched, "total_matched": sum(matched.values())}


class _Orders(_JSONResource):
    """Orders of one kind: POST makes one, GET lists them, DELETE ends one.

    @param kind: see L{ISteering.order}.
    """

    def __init__(self, steering: ISteering, kind: str) -> None:
        super().__init__(steering)
        self._kind = kind

    async def do_POST(self, request: Request) -> dict[str, Any]:
        """Make an order."""
        fields = read_object(request)
        whom = self._read_whom(fields)
        dry_run = fields.take("dry_run", bool, False)
        facts = {
            "reason": _reason(fields, dry_run),
            "expires": _expires(fields),
            "persist": fields.take("persist", bool, False),
        }
        if self._kind == "bounce":
            facts["quiet"] = fields.take("suppress_logging", bool, False)
            facts["report"] = fields.take("report", bool, False)
        fields.end()
        if dry_run:
            return await _dry_run(self._steering, whom)
        order_id = await maybeDeferred(self._steering.order, self._kind, whom, **facts)
        bounced = {"bounced": {}, "total_bounced": 0} if self._kind == "bounce" else {}
        return {"id": order_id, **bounced}

    def _read_whom(self, fields: Fields) -> dict[str, Any]:
        if self._kind != "suspend-ready-q":
            whom = _whom(fields)
            if whom.get("source") and self._kind == "suspend":
                raise BadRequest(422, "source: sources are suspended by suspend-ready-q")
            return whom
        name, source = fields.choice("name"), fields.choice("source")
        if (name is None) == (source is None):
            raise BadRequest(422, "name: either the name of a ready queue or a source is needed")
        return {"ready_queue": name} if name else {"source": source}

    async def do_GET(self, request: Request) -> list[dict[str, Any]]:
        """List the orders."""
        found: list[dict[str, Any]] = await maybeDeferred(self._steering.orders, self._kind)
        for order in found:
            bounced = order.pop("bounced")
            if self._kind == "bounce":
                order.update(bounced=bounced, total_bounced=sum(bounced.values()))
            if "ready_queue" in order:
                order["name"] = order.pop("ready_queue")
        return found

    async def do_DELETE(self, request: Request) -> dict[str, Any]:
        """End an order."""
        fields = read_object(request)
        order_id = fields.need("id")
        fields.end()
        if not await maybeDeferred(self._steering.cancel, self._kind, order_id):
            raise BadRequest(404, f"there is no order {order_id}")
        return {"id": order_id}


class _Rebind(_JSONResource):
    """C{rebind/v1}: change what messages are, and their queue with it."""

    async def do_POST(self, request: Request) -> dict[str, Any]:
        """Rebind."""
        fields = read_object(request)
        whom = _whom(fields)
        data = fields.take("data", dict, {})
        if not all(isinstance(value, str) for value in data.values()):
            raise BadRequest(422, "data: is not an object whose values are texts")
        for name, value in data.items():
            check_text("data", name)
            check_text("data", value)
        flush = fields.take("always_flush", bool, False)
        quiet = fields.take("suppress_logging", bool, False)
        if fields.take("trigger_rebind_event", bool, False):
            raise BadRequest(422, "trigger_rebind_event: there is no policy to be triggered")
        dry_run = fields.take("dry_run", bool, False)
        reason = _reason(fields, dry_run)
        fields.end()
        self._steering.check_rebind(whom, data, flush=flush)
        if dry_run:
            return await _dry_run(self._steering, whom)
        rebind = self._steering.rebind
        await maybeDeferred(rebind, whom, data, reason, flush=flush, quiet=quiet)
        return {}


def _argument(request: Request, name: str, default: str = "") -> str:
    values = (request.args or {}).get(name.encode(), [])
    return values[-1].decode("utf-8", "replace") if values else default


class _InspectMessage(_JSONResource):
    """C{inspect-message/v1?id=…&want_body=true}: one message that waits."""

    async def do_GET(self, request: Request) -> dict[str, Any]:
        """Look it up."""
        message_id = _argument(request, "id")
        want_body = _argument(request, "want_body", "false").lower() in {"true", "1", "yes"}
        found = await self._steering.inspect(message_id, want_body)
        if found is None:
            missing = ", ".join(map(str, self._steering.missing_workers()))
            unseen = f", but the queues of worker {missing} were not seen" if missing else ""
            raise BadRequest(404, f"no message {message_id} waits here{unseen}")
        return {"id": message_id, "message": found}


class _ReadyStates(_JSONResource):
    """C{ready-q-states/v1?queues=…}: what ready queues wait for."""

    async def do_GET(self, request: Request) -> dict[str, Any]:
        """All of them, or those that are named (each in an argument of its own)."""
        names = [
            each.decode("utf-8", "replace") for each in (request.args or {}).get(b"queues", [])
        ]
        states = await maybeDeferred(self._steering.ready_states, names)
        return {"states_by_ready_queue": states}


class _Queues(_JSONResource):
    """C{queues/v1?limit=…}: counts and due times, the largest queues first."""

    async def do_GET(self, request: Request) -> dict[str, Any]:
        """Count."""
        limit = _argument(request, "limit", "100")
        if not limit.isascii() or not limit.isdigit() or len(limit) > 6:
            raise BadRequest(422, "limit: is not a number")
        found: dict[str, Any] = await maybeDeferred(self._steering.queues, int(limit))
        return found


def admin_pages(steering: ISteering) -> Mapping[bytes, IResource]:
    """What there is below C{/api/admin}, each to be found at its C{v1}."""
    kinds = ("bounce", "suspend", "suspend-ready-q")
    return {
        **{kind.encode(): _Orders(steering, kind) for kind in kinds},
        b"rebind": _Rebind(steering),
        b"inspect-message": _InspectMessage(steering),
        b"ready-q-states": _ReadyStates(steering),
        b"queues": _Queues(steering),
    }
