"""Reports to senders: written, kept in the spool, and queued like any other mail (RFC 3461).

A report that ends a message is stored in the commit that removes the message: a process that is
killed leaves one of them, never both and never neither.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from kumotwist.interfaces import ISpool
from kumotwist.message.header import header_end
from kumotwist.message.queued import QueuedMessage, new_id
from kumotwist.message.report import Notice, build_report
from kumotwist.queue.bodies import Bodies
from kumotwist.queue.recorder import Recorder
from kumotwist.queue.tls_wishes import REQUIRED
from kumotwist.spool import SpoolClosedError, SpoolError, UnstorableMessageError
from kumotwist.wire.smtp.replies import Reply
from kumotwist.wire.smtp.syntax import domain_of

__all__ = ["Reporter"]

#: Seconds until a report is tried again that could not be kept.
REPORT_RETRY = 60.0

_TOLD = "dsn_delayed"


class Reporter:
    """Tells senders what became of their messages; whether they want to know is known by then.

    @param clock: tells the time; seconds since the epoch.
    @param hostname: this node's name.
    @param requeue: takes a message that waits until its C{due}.
    """

    _log = Logger()

    def __init__(
        self,
        clock: Any,
        spool: ISpool,
        bodies: Bodies,
        recorder: Recorder,
        hostname: str,
        requeue: Callable[[QueuedMessage], None],
    ) -> None:
        self._clock = clock
        self._spool = spool
        self._bodies = bodies
        self._recorder = recorder
        self._hostname = hostname
        self._requeue = requeue
        # Messages whose delay is being reported, by their ids.
        self._telling: set[str] = set()

    def failed(self, message: QueuedMessage, notice: Notice) -> None:
        """The message is given up: report it, and forget it with that.

        If the report cannot be stored now, it is tried again; the message stays in the spool until
        then, but its fate is decided and recorded, and this process does not attempt it again.
        """
        self._start(message, self._end(message, notice, None))

    def succeeded(self, message: QueuedMessage, notice: Notice, original: bytes | None) -> None:
        """The message is delivered: report it, and forget it with that.

        If the report cannot be stored now the message is forgotten all the same, or it could be
        delivered twice; the report is tried again.

        @param original: header and body, where they are in memory.
        """
        self._start(message, self._end(message, notice, original))

    def delayed(self, message: QueuedMessage, notice: Notice) -> None:
        """The message waits for long: report it, once."""
        self._telling.add(message.id)
        self._start(message, self._tell_of_delay(message, notice))

    def told_of_delay(self, message: QueuedMessage) -> bool:
        """Whether the sender has heard that the message is late, or is just being told."""
        return bool(message.meta.get(_TOLD)) or message.id in self._telling

    # -- one report -------------------------------------------------------------------------------

    def _start(self, message: QueuedMessage, work: Any) -> None:
        reporting = Deferred.fromCoroutine(work)
        reporting.addErrback(
            lambda failure: self._log.failure("reporting on {id} failed", failure, id=message.id)
        )

    async def _end(self, message: QueuedMessage, notice: Notice, original: bytes | None) -> None:
        """Store a report in the place of the message that it speaks of."""
        if original is None:
            original = await self._original(message)
        await self._replace(message, notice, original, [message])

    async def _replace(
        self,
        message: QueuedMessage,
        notice: Notice,
        original: bytes,
        replaced: list[QueuedMessage],
    ) -> None:
        try:
            report, body = self._written(message, original, notice)
            await self._spool.store(body, [report], replaced)
        except SpoolClosedError:
            return  # the node ends; the next process finds the message and decides anew
        except Exception as failure:
            if not isinstance(failure, SpoolError) or isinstance(failure, UnstorableMessageError):
                # Such as a sender whose domain is none: trying again would end the same way.
                self._cannot_report(message, failure)
                if replaced:
                    self.forget(message)
                return
            self._put_off(message, notice, original, replaced, failure)
            return
        if replaced:  # a late message goes on, and an attempt may be under way
            self._bodies.drop(message)
        self._take(report, body, message)

    def _put_off(
        self,
        message: QueuedMessage,
        notice: Notice,
        original: bytes,
        replaced: list[QueuedMessage],
        failure: SpoolError,
    ) -> None:
        """A report cannot be kept now: try it again later."""
        self._log.error(
            "the report on {id} cannot be kept: {reason}; it is tried again",
            id=message.id, reason=str(failure),
        )  # fmt: skip
        if notice.action == "failed":
            self._clock.callLater(REPORT_RETRY, self.failed, message, notice)
            return
        if replaced:
            self.forget(message)
        # Only the header comes back; nothing large has to wait in memory.
        header = original[: header_end(original)]
        self._clock.callLater(
            REPORT_RETRY, lambda: self._start(message, self._replace(message, notice, header, []))
        )

    async def _tell_of_delay(self, message: QueuedMessage, notice: Notice) -> None:
        try:
            original = await self._original(message)
            # In one turn, hence in one commit: that it was told, and the report.
            message.meta[_TOLD] = True
            self._spool.update(message).addErrback(self._not_updated, message)
            await self._replace(message, notice, original, [])
        finally:
            self._telling.discard(message.id)

    async def _original(self, message: QueuedMessage) -> bytes:
        """The message, as far as it can be read."""
        try:
            return await self._bodies.load(message)
        except Exception as failure:
            self._log.error(
                "the report on {id} goes without its header: {reason}",
                id=message.id, reason=str(failure),
            )  # fmt: skip
            return b""

    def _written(
        self, message: QueuedMessage, original: bytes, notice: Notice
    ) -> tuple[QueuedMessage, bytes]:
        """Write a report.

        @return: its envelope and its octets.
        @raise CommandSyntaxError: if the sender's domain cannot be one.
        """
        now = self._clock.seconds()
        report_id = new_id(now)
        queue = domain_of(message.sender)
        body = build_report(
            message,
            original,
            notice,
            reporting_mta=self._hostname,
            report_id=report_id,
            now=now,
        )
        report = QueuedMessage(
            id=report_id,
            sender="",
            recipient=message.sender,
            queue=queue,
            size=len(body),
            created=now,
            due=now,
            meta={"reception_protocol": "Report", "reports_on": message.id},
        )
        if REQUIRED in message.meta:
            report.meta[REQUIRED] = True
        return report, body

    def _take(self, report: QueuedMessage, body: bytes, message: QueuedMessage) -> None:
        """A report is stored: it is mail now."""
        report.body = body
        self._bodies.keep(report)
        self._recorder.reception(report, Reply.of(250, None, f"report on {message.id}"))
        self._requeue(report)

    def _cannot_report(self, message: QueuedMessage, failure: Exception) -> None:
        """No report can ever be made: only the record tells."""
        self._log.error(
            "the sender of {id} cannot be told of its fate: {reason}",
            id=message.id, reason=f"{type(failure).__name__}: {failure}",
        )  # fmt: skip

    # -- the spool --------------------------------------------------------------------------------

    def forget(self, message: QueuedMessage) -> None:
        """The message's fate is decided and nobody is to be told."""
        self._bodies.drop(message)
        self._spool.forget(message)

    def _not_updated(self, failure: Any, message: QueuedMessage) -> None:
        self._log.error(
            "the spool did not record the delay of {id}: {reason}",
            id=message.id, reason=failure.getErrorMessage(),
        )  # fmt: skip
