"""Fates in the words of a report to the sender."""

from __future__ import annotations

from kumotwist.message.queued import QueuedMessage
from kumotwist.message.report import Notice
from kumotwist.queue.recorder import AttemptFacts
from kumotwist.queue.verdicts import INTERNAL
from kumotwist.wire.smtp.replies import EnhancedCode, Reply

__all__ = ["delay_notice", "failure_notice", "success_notice"]


def failure_notice(message: QueuedMessage, reply: Reply, facts: AttemptFacts, now: float) -> Notice:
    """Why a message is given up."""
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
    return Notice(
        reason=reason,
        reply=None if internal else reply,
        status=reply.enhanced_code if internal else None,
        remote_name=facts.host,
        remote_address=facts.peer,
        last_attempt=now if facts.session_id else None,
    )


def delay_notice(reply: Reply, facts: AttemptFacts, now: float, retry_until: float) -> Notice:
    """Why a message is late, and how long it will be tried."""
    internal = reply.content.startswith(INTERNAL)
    if internal:
        reason = f"It could not be delivered so far: {reply.content.removeprefix(INTERNAL)}."
    else:
        reason = "The receiving server does not accept it at the moment."
    temporary = reply.enhanced_code is not None and reply.enhanced_code.klass == 4
    return Notice(
        action="delayed",
        reason=reason,
        reply=None if internal else reply,
        status=reply.enhanced_code if internal and temporary else None,
        retry_until=retry_until,
        remote_name=facts.host,
        remote_address=facts.peer,
        last_attempt=now if facts.session_id else None,
    )


def success_notice(reply: Reply, facts: AttemptFacts, now: float) -> Notice:
    """Who took a message: a mail store delivers it, any other host only promises to."""
    final = facts.delivery_protocol == "LMTP"
    return Notice(
        action="delivered" if final else "relayed",
        reason="The mail store of its recipient has taken it."
        if final
        else "The receiving server has taken it, and does not report deliveries.",
        reply=reply,
        remote_name=facts.host,
        remote_address=facts.peer,
        last_attempt=now,
    )
