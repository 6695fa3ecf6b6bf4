"""From what a visit has shown to what is true of the way out: proxy, login, bind, destination."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

from twisted.internet import defer
from twisted.internet.error import ConnectBindError, ConnectingCancelledError

from kumotwist.check.addresses import address_seen, is_translated
from kumotwist.check.findings import Finding, Status
from kumotwist.check.probe import Probe
from kumotwist.check.ways import Way
from kumotwist.endpoints.errors import (
    AddressFamilyMismatchError,
    EgressError,
    ProxyBindError,
    ProxyLoginError,
    ProxyNegotiationError,
)
from kumotwist.endpoints.hops import FOREIGN
from kumotwist.settings.types import IPAddress
from kumotwist.smtp.client import SessionLost, SessionTimeout, SMTPSessionError
from kumotwist.wire.smtp.replies import one_line
from kumotwist.wire.socks5.format import Rep

__all__ = [
    "echo_findings",
    "local_bind",
    "mx_finding",
    "path_findings",
    "rehearsed",
    "reported_address",
    "untried",
]

#: What is to be done about a proxy that is none of ours.
_ORDINARY = (
    "an ordinary SOCKS5 proxy chooses the address itself: leave socks5_proxy_source_address out, "
    "or use KumoProxy"
)
_STEPS = ("proxy", "login", "bind", "destination")
_OF_PHASE = {"connect": "proxy", "tls": "proxy", "login": "login", "bind": "bind"}
_NOT_TRIED = "not tried: the way out ends before this"
_NO_HOST = "not tried: no host to visit"


def untried(check: str, why: str) -> Finding:
    """A question that was not asked."""
    return Finding(check, Status.SKIPPED, why)


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def _words(error: BaseException) -> str:
    """What went wrong, without the names of proxy and source, which stand above it."""
    if isinstance(error, EgressError):
        return error.problem
    if isinstance(error, ConnectingCancelledError | defer.TimeoutError):
        return "no connection in time"
    return one_line(str(error).rstrip(".") or type(error).__name__, 400)


def _stuck_at(error: Exception | None) -> str:
    """The step at which a visit ended; empty if it got to its end."""
    if error is None:
        return ""
    if isinstance(error, ProxyBindError | ConnectBindError):
        return "bind"
    if isinstance(error, ProxyLoginError):
        return "login"
    if not isinstance(error, EgressError) or isinstance(error, AddressFamilyMismatchError):
        return "destination"
    if error.phase == "greeting":
        # Without a cause it is the proxy's orderly "no" to all the ways of logging in.
        refused = isinstance(error, ProxyNegotiationError) and error.cause is None
        return "login" if refused else "proxy"
    return _OF_PHASE.get(error.phase, "destination")


def path_findings(way: Way, probe: Probe) -> Iterator[Finding]:
    """What a visit says of the way up to the destination: C{proxy}, C{login} and C{bind}."""
    stuck = _stuck_at(probe.error)
    passed = _STEPS.index(stuck) if stuck else len(_STEPS)
    for number, (check, answer) in enumerate(
        (("proxy", _proxy), ("login", _login), ("bind", _bind))
    ):
        if not _concerns(check, way, probe, stuck):
            continue
        if check == stuck:
            assert probe.error is not None
            words = _words(probe.error)
            if isinstance(probe.error, ConnectBindError):
                words = unusable_here(way.address, words)
            elif isinstance(probe.error, ProxyBindError) and _is_ordinary(probe.error):
                words = f"{words}; {_ORDINARY}"
            yield Finding(check, Status.FAILURE, words)
        elif number > passed:
            yield untried(check, _NOT_TRIED)
        else:
            yield answer(way, probe)


def unusable_here(address: IPAddress | None, why: str) -> str:
    """What is said of an address that this machine does not have."""
    return f"{address} cannot be used here: {why}"


def rehearsed(way: Way, probe: Probe | None) -> Iterator[Finding]:
    """What is known of the way up to the destination where no destination was asked for.

    @param probe: what L{kumotwist.check.probe.rehearse} found out.
    """
    if probe is None:
        # Nobody knows what is on the way: a visit might tell.
        if way.source.protocol:
            yield untried("proxy", _NO_HOST)
        return
    for finding in path_findings(way, probe):
        if finding.check == "login" and finding.status is Status.OK and not _says_login(way):
            finding = untried("login", _NO_HOST)
        yield finding


def local_bind(way: Way, error: OSError | None) -> Finding:
    """Answer C{bind} for an address of this machine.

    @param error: why a socket cannot have it.
    """
    if error is None:
        return Finding("bind", Status.OK, f"{way.address} is an address of this machine")
    words = one_line(error.strerror or str(error), 200)
    return Finding("bind", Status.FAILURE, unusable_here(way.address, words))


def _says_login(way: Way) -> bool:
    """Whether the login is said before the destination; HTTP says both at once."""
    return way.source.protocol == "socks5"


def _is_ordinary(error: ProxyBindError) -> bool:
    """Whether a proxy answers BIND as one does that knows RFC 1928 and nothing more: it does not
    have the command, or it listens somewhere for a connection from outside."""
    return error.rep == Rep.COMMAND_NOT_SUPPORTED or (error.rep is None and error.phase == "bind")


def _concerns(check: str, way: Way, probe: Probe, stuck: str) -> bool:
    """Whether a question makes sense for a source."""
    if check == stuck:
        return True
    if check == "proxy":
        return way.source.protocol not in ("", FOREIGN) or probe.hop is not None
    if check == "login":
        return way.source.username is not None
    return way.address is not None


def _proxy(way: Way, probe: Probe) -> Finding:
    server = way.source.server or (probe.hop.server if probe.hop is not None else "")
    took = probe.proxy_seconds
    within = "" if took is None else f", {_milliseconds(took)}"
    return Finding("proxy", Status.OK, f"{server} is reachable{within}", seconds=took)


def _login(way: Way, probe: Probe) -> Finding:
    user = way.source.username
    through: Any = probe.error if probe.hop is None else probe.hop
    if getattr(through, "login_unused", False):
        text = f"the proxy asks for none: {user} and the password are not used"
        return Finding("login", Status.WARNING, text)
    return Finding("login", Status.OK, f"accepted ({user})")


def _bind(way: Way, probe: Probe) -> Finding:
    asked = way.address
    if way.source.protocol == "haproxy":
        return untried("bind", f"HAProxy does not tell whether it uses {asked}")
    if not way.source.protocol:
        return local_bind(way, None)
    if way.source.settings.verify_source_address:
        # Before CONNECT a proxy has not chosen the port.
        known = probe.left_from and not probe.left_from.endswith(":0")
        used = f" ({probe.left_from})" if known else ""
        return Finding("bind", Status.OK, f"{asked} is confirmed by the proxy{used}")
    said = f"reports {probe.left_from}" if probe.left_from else "does not say what it uses"
    text = f"asked for {asked}, the proxy {said}; not compared (verify_source_address = no)"
    return Finding("bind", Status.OK, text)


def mx_finding(way: Way, probe: Probe, name: str) -> Finding:
    """What a visit says of the mail host: whether it is reached, and how it greets.

    @param name: the host as it was given.
    """
    stuck = _stuck_at(probe.error)
    if stuck and stuck != "destination":
        return untried("mx", _NOT_TRIED)
    target = str(probe.target)
    where = target if name in (probe.target.host, target) else f"{name} ({target})"
    error = probe.error
    facts = {"host": name, "address": target}
    if error is None:
        assert probe.greeting is not None
        assert probe.seconds is not None
        text = f"{where} greets: {probe.greeting}, {_milliseconds(probe.seconds)}"
        return Finding("mx", Status.OK, text, seconds=probe.seconds, facts=facts)
    if isinstance(error, AddressFamilyMismatchError):
        return Finding("mx", Status.WARNING, _words(error), facts=facts)
    return Finding("mx", Status.FAILURE, f"{where}: {_trouble(way, probe, error)}", facts=facts)


def _trouble(way: Way, probe: Probe, error: Exception) -> str:
    """Why a mail host was not reached, or does not want us."""
    if not isinstance(error, SMTPSessionError):
        return _words(error)
    if isinstance(error.__cause__, EgressError):
        return _words(error.__cause__)
    silent = probe.greeting is None and isinstance(error, SessionLost | SessionTimeout)
    if silent and probe.hop is not None:
        # A proxy that cannot report errors, or that says "connected" before it is.
        address = f"be able to use {way.address}, or " if way.source.protocol == "haproxy" else ""
        return f"{error.text}; the proxy may not {address}have reached it, or the port is filtered"
    return error.text


def echo_findings(
    way: Way, probe: Probe, *, of_mx: bool = False
) -> tuple[Finding, IPAddress | None]:
    """What a visit says of the address that the source really leaves from.

    @param of_mx: whether it was a visit to the mail host: that may stand behind a translator of
        its own, so what it claims is no proof.
    @return: the finding, and the address that was seen.
    """
    stuck = _stuck_at(probe.error)
    if stuck and stuck != "destination":
        return untried("echo", _NOT_TRIED), None
    if probe.error is not None:
        text = f"{probe.target}: {_trouble(way, probe, probe.error)}"
        return Finding("echo", Status.FAILURE, text), None
    seen = address_seen(probe.hello)
    if seen is None:
        text = f"{probe.target} does not name our address in its answer to EHLO"
        return Finding("echo", Status.WARNING, text), None
    return _compared(way, probe, seen, of_mx), seen


def _compared(way: Way, probe: Probe, seen: IPAddress, of_mx: bool) -> Finding:
    facts = {"address": str(seen)}
    peer = f"{probe.target} sees {seen}"
    asked = _expected(way, probe)
    if asked is None or asked == seen:
        return Finding("echo", Status.OK, peer, facts=facts)
    if is_translated(asked, seen):
        return Finding("echo", Status.OK, f"{peer}: {asked} is translated on the way", facts=facts)
    if way.source.protocol == "socks5" and not way.source.settings.verify_source_address:
        text = f"{peer}, not {asked} (verify_source_address = no)"
        return Finding("echo", Status.OK, text, facts=facts)
    text = f"{peer}, not {asked}"
    if of_mx:
        text = f"{text}; ask an echo peer of your own (--echo ADDR:PORT)"
    return Finding("echo", Status.WARNING if of_mx else Status.FAILURE, text, facts=facts)


def _expected(way: Way, probe: Probe) -> IPAddress | None:
    """The address that a peer must see: the one that was asked for, else the one reported."""
    if way.address is not None:
        return way.address
    return reported_address(probe) if probe.hop is not None else None


def reported_address(probe: Probe) -> IPAddress | None:
    """The address that the proxy, or this machine, says the stream left from."""
    host = probe.left_from.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
