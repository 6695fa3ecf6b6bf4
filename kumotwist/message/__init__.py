"""A message as a value: its envelope, its header, the trace and the reports made about it.

L{QueuedMessage} is what the spool keeps and the queues move: one recipient's copy of a message,
whose octets may be elsewhere. The octets themselves are never parsed as a whole:
L{kumotwist.message.header} answers the few questions a relay has, L{received_header} writes the
line that goes on top, and L{build_report} the notification for a sender whose message failed.
"""

from kumotwist.message.header import (
    HeaderFacts,
    has_header,
    header_end,
    header_facts,
    header_fields,
    header_value,
    is_8bit,
)
from kumotwist.message.queued import QueuedMessage, new_id
from kumotwist.message.received import received_header
from kumotwist.message.report import Notice, build_report, wants_report

__all__ = [
    "HeaderFacts",
    "Notice",
    "QueuedMessage",
    "build_report",
    "has_header",
    "header_end",
    "header_facts",
    "header_fields",
    "header_value",
    "is_8bit",
    "new_id",
    "received_header",
    "wants_report",
]
