"""What is true of an egress source right now, found out through its real path.

A L{SourceChecker} visits a mail host and an echo peer through each source, with the endpoint and
the protocol that deliveries use, and asks DNS what the world sees of the address::

    checker = SourceChecker(reactor, settings, resolver, resolver)
    reports = await checker.check([Subject(Source.of(source_settings), "mta1.example.com")])

Each way of a source, which is one of its proxies with one of its addresses, gets a L{SourceReport}
with a L{Finding} for every question: is the proxy there (C{proxy}), does it let us in (C{login}),
does it use the address (C{bind}), is a mail host reached (C{mx}), what address does a peer see
(C{echo}), has that a name (C{ptr}) that leads back (C{fcrdns}) and is the one in EHLO (C{ehlo}), is
it on a blocklist (C{blocklist}), and does another way leave from it (C{shared}). L{table},
L{to_json} and L{exit_status} tell it to people, to programs and to monitoring. C{kumo source check}
is all of this on a command line.
"""

from kumotwist.check.blocklists import Blocklist
from kumotwist.check.checking import SourceChecker, Subject
from kumotwist.check.findings import Finding, SourceReport, Status, worst
from kumotwist.check.report import exit_status, table, to_json
from kumotwist.check.settings import CheckSettings

__all__ = [
    "Blocklist",
    "CheckSettings",
    "Finding",
    "SourceChecker",
    "SourceReport",
    "Status",
    "Subject",
    "exit_status",
    "table",
    "to_json",
    "worst",
]
