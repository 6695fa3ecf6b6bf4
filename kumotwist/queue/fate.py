"""What becomes of a message: the record, the spool and the sender's report, in that order.

A fate is recorded before the spool forgets the message, so that a crash in between shows the
message again rather than losing it, and a report is in the spool before the failed message
leaves it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from kumotwist.interfaces import ISpool
from kumotwist.journal.records import RecordType
from kumotwist.message.queued import QueuedMessage, new_id
from kumotwist.message.report import Failure, build_report, wants_report
from kumotwist.queue.bodies import Bodies
from kumotwist.queue.recorder import AttemptFacts, Recorder
from kumotwist.queue.retry import expiry, retry_delay
from kumotwist.queue.settings import QueueTable
from kumotwist.queue.verdicts import INTERNAL, Verdict, internal_reply
from kumotwist.spool import SpoolClosedError, SpoolError, UnstorableMessageError
from kumotwist.wire.smtp.replies import EnhancedCode, Reply
from kumotwist.wire.smtp.syntax import domain_of

__all__ = ["Fates"]

#: Seconds until a report is tried again that could not be kept.
REPORT_RETRY = 60.0


class Fates:
    """Decides nothing, carries out everything: each verdict's consequences.

    @param clock: tells the time; seconds since the epoch.
    @param random: gives a number from 0 to 1, for jitter.
    @param hostname: this node's name, for reports.
    @param requeue: takes a message that waits until its C{due}.
    """

    _log = Logger()

    def __init__(
        self,
        clock: Any,
        random: Callable[[], float],
        spool: ISpool,
        bodies: Bodies,
        recorder: Recorder,
        queues: QueueTable,
        hostname: str,
        requeue: Callable[[QueuedMessage], None],
    ) -> None:
        self._clock = clock
        self._random = random
        self._spool = spool
        self._bodies = bodies
        self._recorder = recorder
        self._queues = queues
        self._hostname = hostname
        self._requeue = requeue

    # -- outcomes ---------------------------------------------------------------------------------

    def delivered(self, message: QueuedMessage, reply: Reply, facts: AttemptFacts) -> None:
        """The destination has taken the message."""
        self._recorder.attempt("Delivery", message, reply, facts, self._pool(message))
        self._forget(message)

    def failed(self, message: QueuedMessage, verdict: Verdict, facts: AttemptFacts) -> None:
        """An attempt failed: the message is bounced, tried again later, or expires."""
        # Records count the attempts before the one that they speak of, as KumoMTA's do.
        kind: RecordType = "Bounce" if verdict.permanent else "TransientFailure"
        self._recorder.attempt(kind, message, verdict.reply, facts, self._pool(message))
        if verdict.charge:
            message.attempts += 1
        if verdict.permanent:
            self._bounce(message, verdict.reply, facts)
            return
        settings = self._queues.resolve(message.queue)
        now = self._clock.seconds()
        expires = expiry(settings, message.created)
        if now >= expires:
            self.expired(message, verdict.reply, facts)
            return
        # The last attempt is made when the time is over, not one interval before.
        message.due = min(now + retry_delay(settings, message.attempts, self._random), expires)
        message.meta["last_reply"] = str(verdict.reply)
        # It was attempted: the next wait is a new one, to be recorded again.
        message.meta.pop("delayed", None)
        self._bodies.drop(message)
        self._spool.update(message).addErrback(self._not_updated, message)
        self._requeue(message)

    def held_up(self, message: QueuedMessage, verdict: Verdict, facts: AttemptFacts) -> None:
        """The way out failed: recorded, but neither charged nor counted against the message."""
        self._recorder.attempt(
            "TransientFailure", message, verdict.reply, facts, self._pool(message)
        )
        message.meta["last_reply"] = str(verdict.reply)

    def delayed(self, message: QueuedMessage, seconds: float, reply: Reply, reason: str) -> None:
        """The message waits for something that is not its fault; nothing was attempted.

        Recorded once for each reason, however often the wait is renewed. The spool keeps the due
        time that it has: after a restart the message is simply looked at again.
        """
        if self.put_off(message, reply, reason):
            message.due = self._clock.seconds() + seconds
            self._requeue(message)

    def put_off(self, message: QueuedMessage, reply: Reply, reason: str) -> bool:
        """Record that the message waits, as L{delayed} does; the caller keeps it.

        @return: whether it may wait; else it was too old for that, and its fate is decided.
        """
        now = self._clock.seconds()
        settings = self._queues.resolve(message.queue)
        if now > expiry(settings, message.created):
            self.expired(message, reply, AttemptFacts(pool=settings.egress_pool))
            return False
        if message.meta.get("delayed") != reason:
            message.meta["delayed"] = reason
            self._recorder.attempt(
                "Delayed", message, reply, AttemptFacts(pool=settings.egress_pool)
            )
        return True

    def expired(self, message: QueuedMessage, last: Reply | None, facts: AttemptFacts) -> None:
        """The message is too old for another attempt."""
        known = message.meta.get("last_reply", "") if last is None else str(last)
        words = f"; last failure: {known.replace(INTERNAL, '')}" if known else ""
        age = self._clock.seconds() - message.created
        reply = internal_reply(551, "5.4.7", f"message expired after {_duration(age)}{words}")
        self._recorder.attempt("Expiration", message, reply, facts, self._pool(message))
        self._bounce(message, reply, facts)

    def _pool(self, message: QueuedMessage) -> str:
        return self._queues.resolve(message.queue).egress_pool

    # -- consequences -----------------------------------------------------------------------------

    def _forget(self, message: QueuedMessage) -> Deferred[None]:
        self._bodies.drop(message)
        removing: Deferred[None] = self._spool.remove([message])
        return removing.addErrback(self._not_removed, message)

    def _bounce(self, message: QueuedMessage, reply: Reply, facts: AttemptFacts) -> None:
        """Report the failure to the sender, then forget the message."""
        if not wants_report(message):
            self._forget(message)
            return
        reporting = Deferred.fromCoroutine(self._report(message, reply, facts))
        reporting.addErrback(
            lambda failure: self._log.failure("reporting on {id} failed", failure, id=message.id)
        )

    async def _report(self, message: QueuedMessage, reply: Reply, facts: AttemptFacts) -> None:
        """Store a report, then forget the message that it reports on.

        If it cannot be stored now, it is tried again; the message stays in the spool until then,
        but its fate is decided and recorded, and it is not attempted again by this process.
        """
        original = await self._original(message)
        now = self._clock.seconds()
        try:
            report, body = self._written(message, original, _failure(message, reply, facts, now))
            await self._spool.store(body, [report])
        except SpoolClosedError:
            return  # the node ends; the next process finds the message and decides anew
        except Exception as failure:
            if not isinstance(failure, SpoolError) or isinstance(failure, UnstorableMessageError):
                # Such as a sender whose domain is none: trying again would end the same way.
                self._cannot_report(message, failure)
                return
            self._log.error(
                "the report on {id} cannot be kept: {reason}; the message stays in the spool",
                id=message.id, reason=str(failure),
            )  # fmt: skip
            self._clock.callLater(REPORT_RETRY, self._bounce, message, reply, facts)
            return
        self._forget(message)
        report.body = body
        self._bodies.keep(report)
        self._recorder.reception(report, Reply.of(250, None, f"report on {message.id}"))
        self._requeue(report)

    async def _original(self, message: QueuedMessage) -> bytes:
        """The failed message, as far as it can be read."""
        try:
            return await self._bodies.load(message)
        except Exception as failure:
            self._log.error(
                "the report on {id} goes without its header: {reason}",
                id=message.id, reason=str(failure),
            )  # fmt: skip
            return b""

    def _written(
        self, message: QueuedMessage, original: bytes, failure: Failure
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
            failure,
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
        return report, body

    def _cannot_report(self, message: QueuedMessage, failure: Exception) -> None:
        """No report can ever be made: the message goes without one, and only the record tells."""
        self._log.error(
            "{id} is given up, and its sender cannot be told: {reason}",
            id=message.id, reason=f"{type(failure).__name__}: {failure}",
        )  # fmt: skip
        self._forget(message)

    def _not_updated(self, failure: Any, message: QueuedMessage) -> None:
        self._log.error(
            "the spool did not record the attempt on {id}: {reason}",
            id=message.id, reason=failure.getErrorMessage(),
        )  # fmt: skip

    def _not_removed(self, failure: Any, message: QueuedMessage) -> None:
        self._log.error(
            "the spool did not remove {id}: {reason}",
            id=message.id, reason=failure.getErrorMessage(),
        )  # fmt: skip


def _failure(message: QueuedMessage, reply: Reply, facts: AttemptFacts, now: float) -> Failure:
    """A fate in the words of a report to the sender."""
    content = reply.content
    internal = content.startswith(INTERNAL)
    content = content.removeprefix(INTERNAL)
    expired = reply.enhanced_code == EnhancedCode(5, 4, 7) and internal
    if expired:
        reason = f"It could not be delivered in time: {content}."
    elif internal:
        reason = f"It cannot be delivered: {content}."
    else:
        reason = "The receiving server does not accept it."
    return Failure(
        reason=reason,
        reply=None if internal else reply,
        status=reply.enhanced_code if internal else None,
        remote_name=facts.host,
        remote_address=facts.peer,
        last_attempt=now if facts.session_id else None,
    )


def _duration(seconds: float) -> str:
    """An age as people say it."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"
