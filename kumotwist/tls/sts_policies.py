"""MTA-STS policies of domains: from what is known, from DNS and from the web (RFC 8461, 3 and 5).

Mail waits for a policy only if its domain says by a TXT record that there is one, and not for
long: what comes too late serves the next message. Nothing that goes wrong here stops mail.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore, succeed
from twisted.logger import Logger
from twisted.web.http_headers import Headers

from kumotwist.tls.https import EndpointForHost, HTTPSError, TLSFailed, request
from kumotwist.tls.sts import MAX_POLICY_SIZE, Finding, STSError, read_policy, read_record
from kumotwist.tls.sts_store import KnownPolicy, PolicyStore

__all__ = ["PolicyProblem", "STSPolicies", "fetch_policy"]

#: Seconds that mail waits for a policy; the fetch goes on.
PATIENCE = 10.0
#: Seconds that a fetch may take (RFC 8461, 3.3: a minute or less).
FETCH_TIMEOUT = 30.0
#: Seconds after a failure in which nothing is tried for that domain (RFC 8461, 3.3: five minutes).
QUIET = 300.0
#: Seconds for which nothing is looked up after DNS was silent: mail would wait for nothing.
SILENCE = 10.0
#: A policy is fetched again when it is as old, though its id has not changed; seconds.
STALE = 86400.0
#: Fetches at once; the others wait for their turn.
MAX_FETCHES = 64
#: Domains with a failure that are remembered.
_MAX_QUIET = 20_000
#: Policies that are looked at in one round of refreshing, and the seconds between two rounds.
_ROUND = 50
INTERVAL = 3600.0

Lookup = Callable[[str], Awaitable[tuple[bytes, ...]]]
Fetch = Callable[[str, str], Coroutine[Deferred[Any], Any, bytes]]


class PolicyProblem(Exception):
    """A domain that says it has a policy does not give one.

    @ivar result: what it is called in TLS reports (RFC 8460, 4.3).
    """

    def __init__(self, result: str, text: str) -> None:
        super().__init__(text)
        self.result = result


class STSPolicies:
    """Finds and keeps policies.

    @param clock: tells the time and calls later.
    @param lookup: looks the TXT records of a name up.
    @param fetch: fetches the policy file of a domain, the second argument being the C{via} of
        L{policy}; fails with L{PolicyProblem}.
    """

    _log = Logger()

    def __init__(self, clock: Any, store: PolicyStore, lookup: Lookup, fetch: Fetch) -> None:
        self._clock = clock
        self._store = store
        self._lookup = lookup
        self._fetch = fetch
        self._under_way: dict[str, _Search] = {}
        self._fetching: dict[str, Deferred[None]] = {}
        self._quiet: OrderedDict[str, tuple[float, str]] = OrderedDict()
        self._used: dict[str, str] = {}
        self._silent_until = 0.0
        self._turns = DeferredSemaphore(MAX_FETCHES)
        self._timer: Any = None

    def start(self) -> None:
        """Read what is known, and keep it fresh from now on."""
        self._store.open(self._clock.seconds())
        self._timer = self._clock.callLater(INTERVAL, self._refresh_round)

    def stop(self) -> None:
        """Stop whatever is under way."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        for search in list(self._under_way.values()):
            search.work.cancel()
        for fetching in list(self._fetching.values()):
            fetching.cancel()

    def policy(self, domain: str, via: str) -> Deferred[Finding]:
        """Find a domain's policy.

        @param domain: the mail domain, in lower case and A-labels.
        @param via: what a fetch goes out by, for C{fetch} to know.
        @return: fires within L{PATIENCE} seconds or little more; never fails.
        """
        now = self._clock.seconds()
        known = self._store.get(domain, now)
        if known is not None:
            self._used[domain] = via
        if self._silent_until > now:
            return succeed(_finding(known, ""))
        until, problem = self._quiet.get(domain, (0.0, ""))
        if until > now:
            return succeed(_finding(known, problem))
        search = self._under_way.get(domain)
        if search is None:
            work = Deferred.fromCoroutine(self._search(domain, via, known))
            search = _Search(work, known)
            if work.called:
                return work.addErrback(self._unexpected, known)
            self._under_way[domain] = search
            work.addErrback(self._unexpected, known)
            work.addCallback(self._found, domain, search)
        return search.wait(self._clock)

    def _found(self, finding: Finding, domain: str, search: _Search) -> None:
        if self._under_way.get(domain) is search:
            del self._under_way[domain]
        search.fire(finding)

    def _unexpected(self, failure: Any, known: KnownPolicy | None) -> Finding:
        if not failure.check(CancelledError):
            self._log.failure("looking for an MTA-STS policy failed", failure)
        return _finding(known, "")

    async def _search(self, domain: str, via: str, known: KnownPolicy | None) -> Finding:
        try:
            texts = await self._lookup(f"_mta-sts.{domain}")
        except CancelledError:
            raise
        except Exception as error:  # DNS says nothing: what is known holds
            if getattr(error, "unanswered", False):
                self._silent_until = self._clock.seconds() + SILENCE
            self._log.debug("MTA-STS of {domain}: {reason}", domain=domain, reason=str(error))
            self._be_quiet(domain, "")
            return _finding(known, "")
        name = read_record(texts)
        if name is None:
            return _finding(known, "")
        if known is not None and known.id == name:
            if self._is_stale(known):
                self._fetch_in_background(domain, via, name)
            return _finding(known, "")
        return await self._fetched(domain, via, name, known)

    async def _fetched(
        self, domain: str, via: str, name: str, known: KnownPolicy | None
    ) -> Finding:
        try:
            octets = await self._turns.run(self._fetch_one, domain, via)
            policy = read_policy(domain, octets)
        except (PolicyProblem, STSError) as error:
            problem = getattr(error, "result", "sts-policy-invalid")
            self._log.info(
                "the MTA-STS policy of {domain} cannot be had: {reason}",
                domain=domain, reason=str(error),
            )  # fmt: skip
            self._be_quiet(domain, problem)
            return _finding(known, problem)
        fresh = KnownPolicy(policy, name, self._clock.seconds())
        self._store.put(fresh)
        self._used[domain] = via
        return _finding(fresh, "")

    def _fetch_one(self, domain: str, via: str) -> Deferred[bytes]:
        return Deferred.fromCoroutine(self._fetch(domain, via))

    def _be_quiet(self, domain: str, problem: str) -> None:
        self._quiet[domain] = (self._clock.seconds() + QUIET, problem)
        self._quiet.move_to_end(domain)
        if len(self._quiet) > _MAX_QUIET:
            self._quiet.popitem(last=False)

    # -- keeping fresh ----------------------------------------------------------------------------

    def _is_stale(self, known: KnownPolicy) -> bool:
        age: float = self._clock.seconds() - known.fetched
        return age > min(STALE, known.policy.max_age / 2)

    def _fetch_in_background(self, domain: str, via: str, name: str) -> None:
        if domain in self._fetching:
            return
        known = self._store.get(domain, self._clock.seconds())
        work = Deferred.fromCoroutine(self._fetched(domain, via, name, known))
        done: Deferred[None] = work.addErrback(self._unexpected, known).addCallback(lambda _: None)
        if not done.called:
            self._fetching[domain] = done
            done.addCallback(lambda _: self._fetching.pop(domain, None) and None)

    def _refresh_round(self) -> None:
        """Fetch policies again before they expire, of domains that mail goes to (RFC 8461, 10.2).

        Whoever can suppress a domain's DNS and web server must not have to wait long for that.
        """
        self._timer = self._clock.callLater(INTERVAL, self._refresh_round)
        now = self._clock.seconds()
        used = [
            known
            for known in self._store
            if known.policy.domain in self._used and known.expires > now
        ]
        self._used = {known.policy.domain: self._used[known.policy.domain] for known in used}
        stale = sorted(filter(self._is_stale, used), key=lambda known: known.expires)
        for known in stale[:_ROUND]:
            domain = known.policy.domain
            self._fetch_in_background(domain, self._used[domain], known.id)


class _Search:
    """A search under way and those who wait for it."""

    def __init__(self, work: Deferred[Finding], known: KnownPolicy | None) -> None:
        self.work = work
        self._known = known
        self._waiters: list[Deferred[Finding]] = []

    def wait(self, clock: Any) -> Deferred[Finding]:
        """Wait, but not for long."""
        waiter: Deferred[Finding] = Deferred(lambda gone: self._waiters.remove(gone))
        self._waiters.append(waiter)
        timer = clock.callLater(PATIENCE, self._give_up, waiter)

        def stop(result: Any) -> Any:
            if timer.active():
                timer.cancel()
            return result

        return waiter.addBoth(stop)

    def _give_up(self, waiter: Deferred[Finding]) -> None:
        self._waiters.remove(waiter)
        waiter.callback(_finding(self._known, "sts-policy-fetch-error"))

    def fire(self, finding: Finding) -> None:
        """Tell everybody."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(finding)


def _finding(known: KnownPolicy | None, problem: str) -> Finding:
    return Finding(None if known is None else known.policy, problem)


async def fetch_policy(reactor: Any, domain: str, endpoint_for: EndpointForHost) -> bytes:
    """Fetch a domain's policy file (RFC 8461, 3.3).

    @raise PolicyProblem: if it cannot be had.
    """
    url = f"https://mta-sts.{domain}/.well-known/mta-sts.txt"
    try:
        code, headers, body = await request(
            reactor, b"GET", url, endpoint_for, limit=MAX_POLICY_SIZE, timeout=FETCH_TIMEOUT
        )
    except TLSFailed as error:
        raise PolicyProblem("sts-webpki-invalid", str(error)) from None
    except HTTPSError as error:
        raise PolicyProblem("sts-policy-fetch-error", str(error)) from None
    if code != 200:
        raise PolicyProblem("sts-policy-fetch-error", f"the server answers with status {code}")
    if not _is_plain_text(headers):
        raise PolicyProblem("sts-policy-invalid", "the policy is not text/plain")
    return body


def _is_plain_text(headers: Headers) -> bool:
    """RFC 8461, 3.2: a server whose users may upload files must not be taken for its owner."""
    values = headers.getRawHeaders("content-type") or [""]
    return str(values[-1]).partition(";")[0].strip().lower() == "text/plain"
