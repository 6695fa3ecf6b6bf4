"""What happened to messages: records in files, and the live trace.

A record is a dictionary made by L{make_record} in KumoMTA's shape; L{JournalWriter} writes each as
a line of JSON. Records are data that programs read, not log lines: C{twisted.logger} is for
operators. L{Trace} tells the same story in finer steps to whoever watches at the moment, and keeps
nothing.
"""

from kumotwist.journal.attempts import AttemptForm
from kumotwist.journal.receptions import ReceptionForm
from kumotwist.journal.records import RECORD_TYPES, RecordType, SourceAddress, make_record
from kumotwist.journal.settings import LogSettings
from kumotwist.journal.trace import TooManyWatchersError, Trace, TraceEvent
from kumotwist.journal.writer import JournalWriter

__all__ = [
    "RECORD_TYPES",
    "AttemptForm",
    "JournalWriter",
    "LogSettings",
    "ReceptionForm",
    "RecordType",
    "SourceAddress",
    "TooManyWatchersError",
    "Trace",
    "TraceEvent",
    "make_record",
]
