"""What each failure means: docs/failures.md, row by row, against the code."""

from __future__ import annotations

import errno
import ipaddress
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
from twisted.internet import error
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.dns import DNSError
from kumotwist.egress import Source
from kumotwist.egress.settings import PathSettings, SourceSettings
from kumotwist.endpoints.errors import (
    AddressFamilyMismatchError,
    NegotiationTimeoutError,
    ProxyBindError,
    ProxyConnectError,
    ProxyLoginError,
    ProxyNegotiationError,
    ProxyRefusedError,
    SuspectedProxyError,
)
from kumotwist.endpoints.hops import PlannedHop
from kumotwist.queue.plan import Host, MailLoopError, NullMXError, Plan
from kumotwist.queue.targets import TargetWalk
from kumotwist.queue.verdicts import (
    INTERNAL,
    Scope,
    Verdict,
    internal_reply,
    judge_connect,
    judge_lookup,
    judge_refusal,
    judge_result,
    judge_session,
)
from kumotwist.smtp.client import (
    SessionAuthError,
    SessionLost,
    SessionProtocolError,
    SessionRefused,
    SessionTimeout,
    SessionTLSError,
    SMTPSessionError,
)
from kumotwist.smtp.session_errors import SessionUnfitError
from kumotwist.testing.dns import FakeResolver
from kumotwist.tls.policy import decide
from kumotwist.tls.sts import STSPolicy
from kumotwist.wire.smtp.phases import Phase
from kumotwist.wire.smtp.replies import Reply
from kumotwist.wire.smtp.transaction import RecipientResult, TransactionOutcome

PAGE = Path(__file__).resolve().parent.parent / "docs" / "failures.md"
HOP = PlannedHop("socks5", "10.0.5.10:5000", "10.0.0.1", "192.0.2.1:25")
TARGET = "mx.b.example (192.0.2.1:25) from source one"
HAPROXY = "haproxy 10.0.5.10:2526"

Case = Callable[[], Verdict]


# -- how each case comes about -------------------------------------------------------------------


def connect(failure: BaseException) -> Case:
    """A connection that failed with this."""
    return lambda: judge_connect(failure, TARGET)


def os_error(kind: type[error.ConnectError], number: int) -> error.ConnectError:
    """An error of Twisted's as it comes from the operating system."""
    return kind(number, f"errno {number}")


def session(
    kind: type[SMTPSessionError],
    phase: str,
    *,
    reply: Reply | None = None,
    duplicate: bool = False,
    reused: bool = False,
    proxy: str = "",
) -> Case:
    """A session that ended in a phase."""
    outcome = None
    if duplicate:
        result = RecipientResult(Reply.of(421, "4.4.2", "cut off"), Phase.DOT, local=True)
        outcome = TransactionOutcome((result,), complete=False, possible_duplicate=True)
    failure = kind(phase, f"it ended at {phase}", reply=reply, outcome=outcome)
    return lambda: judge_session(failure, TARGET, unexplained_proxy=proxy, reused=reused)


def result(
    code: int,
    enhanced: str,
    phase: Phase,
    *,
    local: bool = False,
    reused: bool = False,
    progress: bool = False,
) -> Case:
    """A transaction in which a recipient got this reply."""
    reply = Reply.of(code, enhanced, "because")
    decided = RecipientResult(reply, phase, local)
    return lambda: judge_result(decided, reused=reused, progress=progress)


def lookup(failure: BaseException) -> Case:
    """A look-up that failed with this."""
    return lambda: judge_lookup(failure, "b.example")


def walk(*addresses: str, source: str | None = None, fail: bool = False, **path: Any) -> TargetWalk:
    """A walk over one host with these addresses, one step of it taken."""
    name = "mx.b.example"
    records = {name: [f"{'AAAA' if ':' in each else 'A'} {each}" for each in addresses]}
    settings = SourceSettings(
        name="one", source_address=None if source is None else (ipaddress.ip_address(source),)
    )
    return TargetWalk(
        Plan("mx.b.example", "mx.b.example", "b.example", (Host(name),), looked_up=True),
        Source.of(settings),
        attrs.evolve(PathSettings(), **path),
        FakeResolver(records, {name: "timed out"} if fail else None),
        lambda address, port: str(address) == "198.51.100.25",
    )


def skipped(*addresses: str, **facts: Any) -> Case:
    """A walk that passes its only host over; see L{walk}."""

    def case() -> Verdict:
        made = walk(*addresses, **facts)
        take(made)
        (verdict,) = made._verdicts
        return verdict

    return case


def summary(make: Callable[[], TargetWalk], *failures: Verdict) -> Case:
    """A walk in which these hosts failed, summed up."""

    def case() -> Verdict:
        made = make()
        while take(made):
            pass
        for failure in failures:
            made.failed(failure)
        return made.summary()

    return case


def take(made: TargetWalk) -> object:
    """Take a step of a walk whose resolver answers at once."""
    try:
        made.next().send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("the walk waits for something")


def no_hosts() -> TargetWalk:
    """A walk over nothing."""
    plan = Plan("b.example", "b.example", "b.example", (), looked_up=True)
    source = Source.of(SourceSettings(name="one"))
    return TargetWalk(plan, source, PathSettings(), FakeResolver({}))


def refused(rep: int) -> Case:
    """A proxy that answers the request to connect with a code."""
    return connect(ProxyRefusedError.of(HOP, rep))


REFUSED = judge_connect(os_error(error.ConnectionRefusedError, errno.ECONNREFUSED), TARGET)
NO_FAMILY = judge_connect(os_error(error.ConnectBindError, errno.EAFNOSUPPORT), TARGET)
NETWORK = ipaddress.ip_network("192.0.2.0/24")

CASES: dict[str, Case] = {
    "proxy-unreachable": connect(ProxyConnectError(HOP, "connect", "connection refused")),
    "proxy-negotiation": connect(ProxyNegotiationError(HOP, "greeting", "this is HTTP")),
    "proxy-login": connect(ProxyLoginError(HOP, "login", "status 1")),
    "proxy-bind": connect(ProxyBindError(HOP, "bind", "REP 01", rep=1)),
    "proxy-timeout": connect(NegotiationTimeoutError(HOP, "bind", "no answer")),
    "proxy-destination-timeout": connect(NegotiationTimeoutError(HOP, "connect-request", "…")),
    "proxy-closed": connect(SuspectedProxyError(HOP, "connect-request", "closed")),
    "rep-unknown": refused(0x5B),
    "proxy-family": connect(AddressFamilyMismatchError(HOP, "connect", "families")),
    "bind-unplumbed": connect(os_error(error.ConnectBindError, errno.EADDRNOTAVAIL)),
    "bind-no-ports": connect(os_error(error.ConnectBindError, errno.EADDRINUSE)),
    "bind-no-family": connect(os_error(error.ConnectBindError, errno.EAFNOSUPPORT)),
    "out-of-descriptors": connect(os_error(error.ConnectBindError, errno.EMFILE)),
    "connect-refused": lambda: REFUSED,
    "connect-unreachable": connect(os_error(error.NoRouteError, errno.ENETUNREACH)),
    "connect-timeout": connect(error.TimeoutError()),
    "connect-tcp-timeout": connect(os_error(error.TCPTimedOutError, errno.ETIMEDOUT)),
    "connect-invalid": connect(os_error(error.ConnectError, errno.EINVAL)),
    "connect-no-family": connect(os_error(error.ConnectError, errno.EAFNOSUPPORT)),
    "connect-unknown": connect(RuntimeError("what is this?")),
    **{f"rep-{rep:02x}": refused(rep) for rep in range(1, 9)},
    "haproxy-closed": session(SessionLost, "banner", proxy=HAPROXY),
    "haproxy-silence": session(SessionTimeout, "banner", proxy=HAPROXY),
    "banner-lost": session(SessionLost, "banner"),
    "banner-timeout": session(SessionTimeout, "banner"),
    "banner-4xx": session(SessionRefused, "banner", reply=Reply.of(450, None, "busy")),
    "banner-5xx": session(SessionRefused, "banner", reply=Reply.of(554, None, "go away")),
    "ehlo-5xx": session(SessionRefused, "ehlo", reply=Reply.of(550, "5.7.1", "bad name")),
    "starttls-refused": session(SessionRefused, "starttls", reply=Reply.of(454, None, "no")),
    "tls-missing": session(SessionTLSError, "starttls"),
    "tls-handshake": session(SessionTLSError, "starttls"),
    "requiretls-no-tls": session(
        SessionUnfitError, "starttls", reply=Reply.of(550, "5.7.10", "no STARTTLS")
    ),
    "requiretls-certificate": session(
        SessionUnfitError, "starttls", reply=Reply.of(550, "5.7.10", "the certificate has expired")
    ),
    "requiretls-missing": session(
        SessionUnfitError, "starttls", reply=Reply.of(550, "5.7.30", "no REQUIRETLS")
    ),
    "auth-refused": session(SessionRefused, "auth", reply=Reply.of(535, "5.7.8", "no")),
    "auth-unsafe": session(SessionAuthError, "auth"),
    "mail-lost": session(SessionLost, "mail"),
    "mail-lost-reused": session(SessionLost, "mail", reused=True),
    "rset-refused-reused": session(
        SessionRefused, "rset", reply=Reply.of(421, None, "bye"), reused=True
    ),
    "idle-421-reused": session(
        SessionRefused, "idle", reply=Reply.of(421, None, "bye"), reused=True
    ),
    "rcpt-lost": session(SessionLost, "rcpt", reused=True),
    "data-lost": session(SessionLost, "data"),
    "data-timeout": session(SessionTimeout, "data"),
    "dot-lost": session(SessionLost, "dot", duplicate=True),
    "dot-timeout": session(SessionTimeout, "dot", duplicate=True),
    "not-smtp": session(SessionProtocolError, "banner"),
    "not-smtp-reused": session(SessionProtocolError, "mail", reused=True),
    "not-smtp-data": session(SessionProtocolError, "data"),
    "session-unknown": lambda: judge_session(ZeroDivisionError("oops"), TARGET),
    "mail-4xx": result(450, "4.7.1", Phase.MAIL),
    "mail-5xx": result(550, "5.7.1", Phase.MAIL),
    "rcpt-4xx": result(451, "4.7.1", Phase.RCPT),
    "rcpt-5xx": result(550, "5.1.1", Phase.RCPT),
    "rcpt-552": result(552, "5.5.3", Phase.RCPT),
    "rcpt-too-many": result(452, "4.5.3", Phase.RCPT, progress=True),
    "data-4xx": result(451, "4.3.0", Phase.DATA),
    "data-5xx": result(554, "5.5.1", Phase.DATA),
    "dot-4xx": result(452, "4.3.1", Phase.DOT),
    "dot-5xx": result(554, "5.7.1", Phase.DOT),
    "503": result(503, "5.5.1", Phase.MAIL),
    "530": result(530, "5.7.0", Phase.MAIL),
    "421-mail": result(421, "4.3.2", Phase.MAIL),
    "421-mail-reused": result(421, "4.3.2", Phase.MAIL, reused=True),
    "421-rcpt": result(421, "4.3.2", Phase.RCPT, reused=True),
    "421-dot": result(421, "4.3.2", Phase.DOT),
    "lacks-8bitmime": result(554, "5.6.3", Phase.MAIL, local=True),
    "lacks-binarymime": result(554, "5.6.3", Phase.MAIL, local=True),
    "lacks-smtputf8": result(553, "5.6.7", Phase.RCPT, local=True),
    "lacks-smtputf8-header": result(554, "5.6.7", Phase.MAIL, local=True),
    "mail-loop": lookup(MailLoopError("b.example", "mx1.b.example")),
    "no-such-domain": lookup(DNSError("b.example", "it does not exist", permanent=True)),
    "null-mx": lookup(NullMXError("b.example")),
    "dns-failure": lookup(DNSError("b.example", "timed out")),
    "lookup-unknown": lookup(RuntimeError("what is this?")),
    "host-dns-failure": skipped(fail=True),
    "host-no-address": skipped(),
    "host-strategy": skipped("2001:db8::1", ip_lookup_strategy="Ipv4Only"),
    "host-skipped": skipped("192.0.2.1", skip_hosts=(NETWORK,)),
    "host-family": skipped("2001:db8::1", source="198.51.100.1"),
    "host-prohibited": skipped("127.0.0.1"),
    "host-ourselves": skipped("198.51.100.25"),
    "host-refused": lambda: judge_refusal(
        decide("Required", "mx.b.example", sts=STSPolicy("b.example", "enforce", ("no",), 1)),
        "mx.b.example",
    ),
    "site-no-hosts": summary(no_hosts),
    "site-one-host": summary(lambda: walk("192.0.2.1"), REFUSED),
    "site-all-prohibited": summary(lambda: walk("127.0.0.1", "::1")),
    "site-mixed": summary(lambda: walk("127.0.0.1", "192.0.2.1"), REFUSED),
    "site-no-family": summary(lambda: walk("2001:db8::1", "2001:db8::2"), NO_FAMILY, NO_FAMILY),
}


# -- the page ------------------------------------------------------------------------------------


def rows() -> dict[str, tuple[str, ...]]:
    """The page's cases: reach, end, attempt and blame of each."""
    found: dict[str, tuple[str, ...]] = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        name = re.fullmatch(r"`([a-z0-9-]+)`", cells[0])
        if len(cells) == 6 and name is not None:
            if name[1] in found:
                raise AssertionError(f"{name[1]} is on the page twice")
            found[name[1]] = tuple(cells[2:])
    return found


def as_row(verdict: Verdict) -> tuple[str, ...]:
    """A verdict in the words of the page."""
    return (
        verdict.scope.value,
        "permanent" if verdict.permanent else "temporary",
        "charged" if verdict.charge else "free",
        "source?" if verdict.suspected else verdict.blame,
    )


class PageTests(SynchronousTestCase):
    """docs/failures.md says what the code does."""

    def test_every_case_has_a_row(self) -> None:
        """No case is missing on the page, and no row speaks of a case that does not exist."""
        self.assertEqual(set(rows()), set(CASES))

    def test_rows(self) -> None:
        """Each row says what the code decides."""
        told = rows()
        wrong = {
            name: (row, told.get(name))
            for name, case in CASES.items()
            if (row := as_row(case())) != told.get(name)
        }
        self.assertEqual(wrong, {})

    def test_every_scope_is_explained(self) -> None:
        """The page says of each scope what is tried next."""
        text = PAGE.read_text(encoding="utf-8")
        for scope in Scope:
            self.assertRegex(text, rf"(?m)^  \| `{scope.value}` \|")


class RuleTests(SynchronousTestCase):
    """What holds for all verdicts."""

    def test_the_way_out_is_never_the_messages_fault(self) -> None:
        """A failure of a proxy or a source ends no message and costs it no attempt."""
        for name, case in CASES.items():
            verdict = case()
            if verdict.scope is Scope.SOURCE:
                self.assertFalse(verdict.permanent or verdict.charge, name)

    def test_our_own_words(self) -> None:
        """What we refuse without asking is never taken for the destination's answer."""
        reply = Reply.of(554, "5.6.3", "it lacks 8BITMIME")._replace(command="MAIL FROM:<>")
        local = judge_result(RecipientResult(reply, Phase.MAIL, local=True))
        self.assertEqual(local.reply.content, f"{INTERNAL}it lacks 8BITMIME")
        self.assertEqual(local.reply._replace(lines=reply.lines), reply)
        self.assertTrue(local.permanent)
        self.assertIs(judge_result(RecipientResult(reply, Phase.MAIL)).reply, reply)

    def test_unknown_is_temporary(self) -> None:
        """An exception that nobody has thought of never bounces a message."""
        for failure in (KeyError("x"), OSError(), ValueError("5xx"), MemoryError(), Exception()):
            for verdict in (
                judge_connect(failure, TARGET),
                judge_session(failure, TARGET),
                judge_lookup(failure, "b.example"),
            ):
                self.assertFalse(verdict.permanent)
                self.assertTrue(verdict.reply.is_transient)

    def test_code_and_verdict_agree(self) -> None:
        """A permanent verdict has a 5xx to quote."""
        for name, case in CASES.items():
            verdict = case()
            if verdict.permanent:
                self.assertTrue(verdict.reply.is_permanent, name)

    def test_our_own_words_are_marked(self) -> None:
        """What no server said cannot be taken for a server's words, and says of what it speaks."""
        for name in ("connect-refused", "banner-lost", "dot-lost", "tls-handshake"):
            content = CASES[name]().reply.content
            self.assertTrue(content.startswith(INTERNAL), content)
            self.assertIn("mx.b.example", content)
        self.assertIn("10.0.5.10:5000", CASES["proxy-bind"]().reply.content)

    def test_haproxy_is_named(self) -> None:
        """A suspicion says whom it suspects, and that it is one."""
        content = CASES["haproxy-closed"]().reply.content
        self.assertIn("suspected", content)
        self.assertIn(HAPROXY, content)

    def test_duplicates_are_announced(self) -> None:
        """A session lost after the dot is marked as a possible duplicate."""
        verdict = CASES["dot-lost"]()
        self.assertTrue(verdict.possible_duplicate)
        self.assertEqual(verdict.reply.command, ".")
        self.assertIn("more than once", verdict.reply.content)

    def test_null_mx_codes(self) -> None:
        """A null MX is told with the codes of RFC 7505, 4.2."""
        reply = CASES["null-mx"]().reply
        self.assertEqual((reply.code, str(reply.enhanced_code)), (556, "5.1.10"))

    def test_hostile_words(self) -> None:
        """A name or an error text with control characters stays on one line, and is bounded."""
        hostile = "\r\n250 ok\x1b[2J" + "x" * 5000
        for verdict in (
            judge_connect(RuntimeError(hostile), hostile),
            judge_session(SessionLost("mail", hostile), hostile),
            judge_lookup(DNSError(hostile, hostile), hostile),
        ):
            self.assertNotIn("\n", verdict.reply.lines[0])
            self.assertNotIn("\x1b", verdict.reply.lines[0])
            self.assertLessEqual(len(verdict.reply.lines[0]), 1024)

    def test_an_error_without_words(self) -> None:
        """An exception without a text is told by its name."""
        self.assertIn("RuntimeError", judge_connect(RuntimeError(), TARGET).reply.content)

    def test_internal_reply(self) -> None:
        """A reply of our own carries the command that it answers."""
        reply = internal_reply(451, "4.3.0", "why", "MAIL FROM:<>")
        self.assertEqual(str(reply), f"451 4.3.0 {INTERNAL}why")
        self.assertEqual(reply.command, "MAIL FROM:<>")
