"""What becomes of a message: the record, the spool and the sender's report, in that order.

A fate is recorded before the spool forgets the message, so that a crash in between shows the
message again rather than losing it, and a report takes the message's place in the spool.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

from kumotwist.interfaces import ISpool
from kumotwist.journal.records import RecordType
from kumotwist.message.queued import QueuedMessage
from kumotwist.message.report import wants_report
from kumotwist.queue.bodies import Bodies
from kumotwist.queue.notices import delay_notice, failure_notice, success_notice
from kumotwist.queue.recorder import AttemptFacts, Recorder
from kumotwist.queue.reporting import Reporter
from kumotwist.queue.retry import expiry, retry_due
from kumotwist.queue.settings import QueueSettings, QueueTable
from kumotwist.queue.verdicts import INTERNAL, Verdict, internal_reply
from kumotwist.wire.smtp.replies import Reply, one_line

__all__ = ["Fates"]


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
        self._requeue = requeue
        self._reporter = Reporter(clock, spool, bodies, recorder, hostname, requeue)

    # -- outcomes ---------------------------------------------------------------------------------

    def delivered(
        self,
        message: QueuedMessage,
        reply: Reply,
        facts: AttemptFacts,
        original: bytes | None = None,
    ) -> None:
        """The destination has taken the message.

        @param original: header and body, where they are in memory, for the sender's report.
        """
        pool = self._queues.resolve(message.queue).egress_pool
        self._recorder.attempt("Delivery", message, reply, facts, pool)
        # A host that offers DSN was told what the sender wants, and reports itself (RFC 3461, 5.2).
        # Nobody hears of a delivery without having asked for it.
        if not facts.dsn and "dsn_notify" in message.meta:
            notice = success_notice(reply, facts, self._clock.seconds())
            if wants_report(message, notice.action):
                self._reporter.succeeded(message, notice, original)
                return
        self._reporter.forget(message)

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
        if now >= expiry(settings, message):
            self.expired(message, verdict.reply, facts)
            return
        message.due = retry_due(settings, message, now, self._random)
        message.meta["last_reply"] = str(verdict.reply)
        # It was attempted: the next wait is a new one, to be recorded again.
        message.meta.pop("delayed", None)
        self._bodies.drop(message)
        self._perhaps_late(message, settings, verdict.reply, facts)
        self._spool.update(message).addErrback(self._not_updated, message)
        self._requeue(message)

    def admin_bounced(
        self, message: QueuedMessage, reason: str, *, quiet: bool, report: bool
    ) -> None:
        """The operator has ordered that the message be given up.

        @param quiet: whether that is not recorded.
        @param report: whether the sender is told.
        """
        reply = Reply.of(551, "5.7.1", one_line(reason))
        facts = AttemptFacts(pool=self._pool(message))
        if not quiet:
            self._recorder.attempt("AdminBounce", message, reply, facts)
        if report:
            self._bounce(message, reply, facts)
        else:
            self._reporter.forget(message)

    def rebound(self, message: QueuedMessage, reason: str, *, quiet: bool) -> None:
        """The operator has put the message into another queue, or has made it due."""
        if not quiet:
            reply = Reply.of(250, "2.0.0", one_line(reason))
            facts = AttemptFacts(pool=self._pool(message))
            self._recorder.attempt("AdminRebind", message, reply, facts)
        message.meta.pop("delayed", None)
        self._spool.update(message).addErrback(self._not_updated, message)

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
        if now > expiry(settings, message):
            self.expired(message, reply, AttemptFacts(pool=settings.egress_pool))
            return False
        facts = AttemptFacts(pool=settings.egress_pool)
        if message.meta.get("delayed") != reason:
            message.meta["delayed"] = reason
            self._recorder.attempt("Delayed", message, reply, facts)
        self._perhaps_late(message, settings, reply, facts)
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

    def _bounce(self, message: QueuedMessage, reply: Reply, facts: AttemptFacts) -> None:
        """Report the failure to the sender, and forget the message with that."""
        if wants_report(message):
            now = self._clock.seconds()
            self._reporter.failed(message, failure_notice(message, reply, facts, now))
        else:
            self._reporter.forget(message)

    def _perhaps_late(
        self,
        message: QueuedMessage,
        settings: QueueSettings,
        reply: Reply,
        facts: AttemptFacts,
    ) -> None:
        """Tell the sender of a delay, where it is long enough, was asked for and was not told."""
        now = self._clock.seconds()
        if now - message.created < settings.delay_report_after or self._reporter.told_of_delay(
            message
        ):
            return
        if wants_report(message, "delayed", delay_by_default=settings.delay_report_by_default):
            retry_until = expiry(settings, message)
            self._reporter.delayed(message, delay_notice(reply, facts, now, retry_until))

    def _not_updated(self, failure: Any, message: QueuedMessage) -> None:
        self._log.error(
            "the spool did not record the attempt on {id}: {reason}",
            id=message.id, reason=failure.getErrorMessage(),
        )  # fmt: skip


def _duration(seconds: float) -> str:
    """An age as people say it."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"
