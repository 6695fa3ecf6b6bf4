"""TLS reports for a node: numbers over restarts, and reports to the domains that ask for them."""

from __future__ import annotations

import gzip
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList, DeferredSemaphore
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.web.client import FileBodyProducer

from kumotwist.message.queued import QueuedMessage, new_id
from kumotwist.message.tls_report import TLSReportMail
from kumotwist.queue.tls_wishes import WAIVED
from kumotwist.tls.https import EndpointForHost, HTTPSError, request
from kumotwist.tls.report import Tally, TLSOutcome, read_report_record
from kumotwist.tls.settings import TLSReportSettings
from kumotwist.wire.smtp.syntax import CommandSyntaxError, domain_of

__all__ = ["TLSReportService"]

#: Seconds after which numbers are on disk.
SAVE_INTERVAL = 60.0
#: Seconds between two tries to send the reports of a period, and how long that is tried: a day
#: (RFC 8460, 5.5).
RETRY = 600.0
GIVE_UP = 86400.0
#: Domains that are told at once.
_AT_ONCE = 16
#: Octets of an answer to a report.
_MAX_ANSWER = 4096

_FILE = re.compile(r"[0-9]{1,12}\.json")

Send = Callable[[QueuedMessage, bytes], Deferred[None]]


class TLSReportService(Service):
    """Counts sessions, and reports when a period is over.

    Each period has a file in the directory, which goes when its reports are sent.

    @param directory: where the numbers are kept; it is made if it is missing.
    @param hostname: this node's name.
    @param resolver: looks up who wants reports.
    @param endpoint_for: gives, for a domain, the way to the web server that takes its reports.
    @param send: puts a message into the queue.
    @param random: gives a number from 0 to 1.
    @param left_over: the directories of processes that there are no more.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        settings: TLSReportSettings,
        directory: str,
        hostname: str,
        resolver: Any,
        endpoint_for: Callable[[str], EndpointForHost],
        send: Send,
        random: Callable[[], float],
        left_over: Sequence[str] = (),
    ) -> None:
        self._reactor = reactor
        self._settings = settings
        self._directory = directory
        self._hostname = hostname
        self._resolver = resolver
        self._endpoint_for = endpoint_for
        self._send = send
        self._random = random
        self._left_over = left_over
        self._tally = Tally(self._period(reactor.seconds()))
        self._changed = False
        self._timers: list[Any] = []
        self._work: set[Deferred[None]] = set()

    def _period(self, now: float) -> float:
        return now - now % self._settings.interval

    # -- counting ---------------------------------------------------------------------------------

    def count(self, outcome: TLSOutcome) -> None:
        """Count a session."""
        self._changed = True
        self._tally.count(outcome)

    # -- lifecycle --------------------------------------------------------------------------------

    def startService(self) -> None:
        """Take up what an earlier process has counted."""
        super().startService()  # type: ignore[no-untyped-call]
        os.makedirs(self._directory, mode=0o750, exist_ok=True)
        for path, tally in self._found(self._directory):
            if tally.begin == self._tally.begin:
                self._tally = tally
            else:
                self._report_later(tally, path)
        for directory in self._left_over:
            if os.path.isdir(directory):
                for path, tally in self._found(directory):
                    end = tally.begin + self._settings.interval
                    self._later(
                        max(0.0, end - self._reactor.seconds()), self._report_later, tally, path
                    )
        self._later(SAVE_INTERVAL, self._save_now_and_then)
        self._wait_for_end()

    def stopService(self) -> None:
        """Keep the numbers; reports that were not sent are sent by the next process."""
        for timer in self._timers:
            if timer.active():
                timer.cancel()
        for work in list(self._work):
            work.cancel()
        if self._changed:
            self._write(self._tally.begin, json.dumps(self._tally.dump()))
        super().stopService()  # type: ignore[no-untyped-call]

    def _found(self, directory: str) -> Iterator[tuple[str, Tally]]:
        """The numbers that are kept in a directory."""
        for name in sorted(os.listdir(directory)):
            path = os.path.join(directory, name)
            tally = self._load(path) if _FILE.fullmatch(name) else None
            if tally is not None:
                yield path, tally

    def _later(self, seconds: float, call: Callable[..., None], *args: Any) -> None:
        self._timers = [timer for timer in self._timers if timer.active()]
        self._timers.append(self._reactor.callLater(seconds, call, *args))

    def _wait_for_end(self) -> None:
        end = self._tally.begin + self._settings.interval
        self._later(max(0.0, end - self._reactor.seconds()), self._end)

    def _end(self) -> None:
        """A period is over."""
        over, self._tally = self._tally, Tally(self._period(self._reactor.seconds()))
        if over.domains:
            self._write(over.begin, json.dumps(over.dump()))
            self._report_later(over, self._path(over.begin))
        self._changed = False
        self._wait_for_end()

    # -- files ------------------------------------------------------------------------------------

    def _path(self, begin: float) -> str:
        return os.path.join(self._directory, f"{int(begin)}.json")

    def _save_now_and_then(self) -> None:
        self._later(SAVE_INTERVAL, self._save_now_and_then)
        if self._changed:
            self._changed = False
            # A copy: the thread must not see the numbers change.
            dumped, begin = self._tally.dump(), self._tally.begin
            pool = self._reactor.getThreadPool()
            writing = deferToThreadPool(
                self._reactor, pool, lambda: self._write(begin, json.dumps(dumped))
            )
            self._go_on(writing)

    def _write(self, begin: float, text: str) -> None:
        path = self._path(begin)
        try:
            with open(f"{path}.new", "w", encoding="ascii") as stream:
                stream.write(text)
            os.replace(f"{path}.new", path)
        except OSError as error:
            self._log.error("{path}: {reason}", path=path, reason=error.strerror or str(error))

    def _load(self, path: str) -> Tally | None:
        try:
            with open(path, encoding="ascii") as stream:
                return Tally.load(json.load(stream))
        except (OSError, ValueError) as error:
            self._log.error("{path}: {reason}; it is left alone", path=path, reason=str(error))
            return None

    # -- reports ----------------------------------------------------------------------------------

    def _report_later(self, tally: Tally, path: str) -> None:
        delay = self._random() * self._settings.max_delay
        self._later(delay, self._report, tally, tally.domains, path)

    def _report(self, tally: Tally, domains: list[str], path: str) -> None:
        self._go_on(Deferred.fromCoroutine(self._report_all(tally, domains, path)))

    def _go_on(self, work: Deferred[Any]) -> None:
        self._work.add(work)

        def done(result: Any) -> None:
            self._work.discard(work)

        work.addErrback(self._unexpected).addCallback(done)

    def _unexpected(self, failure: Any) -> None:
        if not failure.check(CancelledError):
            self._log.failure("TLS reports failed", failure)

    async def _report_all(self, tally: Tally, domains: list[str], path: str) -> None:
        """Report to the domains that want it; those that cannot be told now are told later."""
        turns = DeferredSemaphore(_AT_ONCE)
        done: Deferred[Any] = DeferredList(
            [turns.run(self._try, tally, domain) for domain in domains]
        )
        again = [domain for domain, (_, sent) in zip(domains, await done, strict=True) if not sent]
        end = tally.begin + self._settings.interval
        if again and self._reactor.seconds() < end + self._settings.max_delay + GIVE_UP:
            self._later(RETRY, self._report, tally, again, path)
        else:
            try:
                os.unlink(path)
            except OSError as error:
                self._log.debug("{reason}", reason=str(error))

    def _try(self, tally: Tally, domain: str) -> Deferred[bool]:
        """Report to one domain; fires with whether that is done."""

        def failed(failure: Any) -> bool:
            if failure.check(CancelledError):
                return False
            self._log.info(
                "the TLS report for {domain} cannot be sent now: {reason}",
                domain=domain, reason=failure.getErrorMessage(),
            )  # fmt: skip
            return False

        work = Deferred.fromCoroutine(self._report_one(tally, domain))
        return work.addCallbacks(lambda _: True, failed)

    async def _report_one(self, tally: Tally, domain: str) -> None:
        places = read_report_record(await self._resolver.lookup_text(f"_smtp._tls.{domain}"))
        if not places:
            return
        end = tally.begin + self._settings.interval - 1
        report_id = new_id(self._reactor.seconds())
        report = tally.report(
            domain,
            end=end,
            organization=self._settings.organization_name,
            contact=self._settings.contact_info,
            report_id=f"{report_id}@{self._hostname}",
        )
        octets = gzip.compress(json.dumps(report).encode("ascii"), mtime=0)
        failure: Exception | None = None
        sent = 0
        for place in places:
            try:
                if place[:6].lower() == "https:":
                    await self._post(domain, place, octets)
                else:
                    mail = TLSReportMail(
                        self._settings.sender or self._settings.contact_info, place[7:],
                        domain, self._hostname, report_id, tally.begin, end, octets,
                    )  # fmt: skip
                    await self._mail(mail)
                sent += 1
            except CancelledError:
                raise
            except Exception as error:
                failure = error
        # Whoever got it at one place is not told again for the sake of another.
        if failure is not None and not sent:
            raise failure
        self._log.info("TLS report for {domain} sent", domain=domain)

    async def _post(self, domain: str, place: str, octets: bytes) -> None:
        code, _, _ = await request(
            self._reactor,
            b"POST",
            place,
            self._endpoint_for(domain),
            headers={b"Content-Type": [b"application/tlsrpt+gzip"]},
            body=FileBodyProducer(BytesIO(octets)),
            limit=_MAX_ANSWER,
        )
        if code // 100 != 2:
            raise HTTPSError(f"{place} answers with status {code}")

    async def _mail(self, mail: TLSReportMail) -> None:
        now = self._reactor.seconds()
        try:
            queue = domain_of(mail.recipient)
        except CommandSyntaxError:
            return  # what the domain wrote is no address; no other day will make it one
        if not queue:
            return
        body = mail.octets(now)
        message = QueuedMessage(
            id=new_id(now),
            sender=mail.sender,
            recipient=mail.recipient,
            queue=queue,
            size=len(body),
            created=now,
            due=now,
            # Nobody wants to hear of a report that was not delivered; broken TLS is no obstacle.
            meta={"reception_protocol": "TLSReport", "dsn_notify": [], WAIVED: True},
        )
        await self._send(message, body)
