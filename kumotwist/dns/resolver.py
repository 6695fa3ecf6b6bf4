"""What mail asks of DNS: exchangers (RFC 5321, 5.1), addresses, names of addresses, blocklists."""

from __future__ import annotations

import ipaddress
import random
import re
from typing import Any

import dns.rdatatype
from twisted.internet.defer import Deferred, DeferredList, fail, succeed
from twisted.python.failure import Failure
from zope.interface import implementer

from kumotwist.dns.answers import Answer
from kumotwist.dns.client import Asker, DNSClient
from kumotwist.dns.errors import DNSError
from kumotwist.dns.exchangers import MailExchangers, in_order, site_name
from kumotwist.dns.names import HOST_NAME, host_question
from kumotwist.dns.settings import DNSSettings
from kumotwist.dns.system import system_nameservers
from kumotwist.dns.tlsa import TLSARecords, find_tlsa
from kumotwist.interfaces import IResolver
from kumotwist.settings.types import IPAddress

__all__ = ["Resolver"]

_LITERAL = re.compile(r"\[(?:ipv6:)?([0-9a-f:.]+)\]")
#: A domain that has more exchangers is tried at the best of them.
_MAX_HOSTS = 32
#: A host that has more addresses is tried at these.
_MAX_ADDRESSES = 32
#: An address that has more names is known by these; RFC 7208, 4.6.4 looks at no more either.
_MAX_NAMES = 10


@implementer(IResolver)
class Resolver:
    """Looks up what mail needs to know; nothing blocks, every look-up ends in time."""

    def __init__(
        self,
        reactor: Any,
        settings: DNSSettings,
        *,
        asker: Asker | None = None,
        chance: random.Random | None = None,
    ) -> None:
        """Nothing is asked yet; without configured name servers C{/etc/resolv.conf} is read.

        @param reactor: provides C{IReactorTime}, C{IReactorFDSet} and C{IReactorTCP}.
        @param asker: answers the questions instead of name servers.
        @param chance: shuffles hosts and addresses.
        """
        self._hosts = settings.hosts
        self._asker = asker or DNSClient(
            reactor,
            settings.nameservers or system_nameservers(),
            settings.timeout,
            trusted=settings.trusted_nameservers,
        )
        self._chance = chance or random.Random()

    # -- mail exchangers ---------------------------------------------------------------------

    def lookup_mx(self, domain: str, whose: str = "") -> Deferred[MailExchangers]:
        """Find where a domain's mail goes.

        Domain literals and the names of C{[dns] hosts} are answered without asking anybody.

        @param domain: in A-labels, or an address literal in its brackets.
        @param whose: the tenant whose mail it is for: tenants take turns.
        @return: fires with L{MailExchangers}; fails with L{DNSError}, permanent if the domain does
            not exist, has neither exchangers nor addresses, or cannot be a domain. Cancelling
            it ends the look-ups.
        """
        key = domain.lower().removesuffix(".")
        if key.startswith("["):
            return self._literal(key)
        if key in self._hosts:
            return succeed(MailExchangers(key, ((0, key),), key, implicit=True))
        try:
            question = host_question(key, dns.rdatatype.MX)
        except DNSError as error:
            return fail(error)
        return self._asker.ask(question, f"mail of {whose}").addCallback(
            self._mx_answered, key, whose
        )

    def _literal(self, key: str) -> Deferred[MailExchangers]:
        match = _LITERAL.fullmatch(key)
        try:
            host = str(ipaddress.ip_address(match.group(1) if match else ""))
        except ValueError:
            return fail(DNSError(key, f"{key!a} is not an address literal", permanent=True))
        return succeed(MailExchangers(key, ((0, host),), host))

    def _mx_answered(
        self, answer: Answer, domain: str, whose: str
    ) -> MailExchangers | Deferred[MailExchangers]:
        if not answer.exists:
            raise DNSError(domain, f"the domain {domain} does not exist", permanent=True)
        if not answer.values:
            found = self._find_addresses(domain, f"mail of {whose}")
            return found.addCallback(self._implicit_mx, domain, answer)
        named = [
            (record.preference, record.exchange.to_text(omit_final_dot=True).lower())
            for record in answer.values
        ]
        # "." beside real hosts is a mistake (RFC 7505, 3); the real hosts count.
        hosts = [(preference, name) for preference, name in named if name not in ("", "@", ".")]
        if not hosts:
            return MailExchangers(domain, (), domain, null_mx=True)
        usable = sorted(host for host in hosts if HOST_NAME.fullmatch(host[1]))[:_MAX_HOSTS]
        if not usable:
            raise DNSError(domain, f"no mail exchanger of {domain} has a usable name")
        site = site_name([name for _, name in usable])
        return MailExchangers(
            domain,
            in_order(usable, self._chance),
            site,
            secure=answer.secure,
        )

    def _implicit_mx(
        self, addresses: tuple[IPAddress, ...], domain: str, answer: Answer
    ) -> MailExchangers:
        if not addresses:
            raise DNSError(
                domain,
                f"the domain {domain} has neither mail exchangers nor addresses",
                permanent=True,
            )
        return MailExchangers(
            domain,
            ((0, domain),),
            domain,
            implicit=True,
            secure=answer.secure,
        )

    # -- addresses ---------------------------------------------------------------------------

    def lookup_addresses(self, name: str) -> Deferred[tuple[IPAddress, ...]]:
        """Find a host's addresses, A and AAAA at once.

        @param name: a host name in A-labels, or an address.
        @return: fires with the addresses, IPv4 first, shuffled within a family; empty if the
            host has none or does not exist. Fails with L{DNSError} only if nothing was found and
            one of the two look-ups failed. Cancelling it ends both.
        """
        return self._find_addresses(name, "")

    def _find_addresses(self, name: str, whose: str) -> Deferred[tuple[IPAddress, ...]]:
        key = name.lower().removesuffix(".")
        try:
            return succeed((ipaddress.ip_address(key),))
        except ValueError:
            pass
        if key in self._hosts:
            return succeed(self._hosts[key])
        try:
            questions = [host_question(key, kind) for kind in (dns.rdatatype.A, dns.rdatatype.AAAA)]
        except DNSError as error:
            return fail(error)
        both: Deferred[Any] = DeferredList(
            [self._asker.ask(question, whose) for question in questions], consumeErrors=True
        )
        return both.addCallback(self._addresses_answered)

    def _addresses_answered(self, outcomes: list[tuple[bool, Any]]) -> tuple[IPAddress, ...]:
        found: list[IPAddress] = []
        failures: list[Failure] = []
        for succeeded, outcome in outcomes:
            if succeeded:
                family = [ipaddress.ip_address(record.address) for record in outcome.values]
                self._chance.shuffle(family)
                found.extend(family)
            else:
                failures.append(outcome)
        if failures and not found:
            failures[0].raiseException()
        return tuple(found[:_MAX_ADDRESSES])

    # -- TLS -----------------------------------------------------------------------------------

    def lookup_tlsa(self, host: str, port: int) -> Deferred[TLSARecords | None]:
        """Find the TLSA records of a host (RFC 7672, 2.2).

        @param host: a host name in A-labels, or an address, which has none.
        @return: fires with L{None} if DANE does not apply to the host, which is true of addresses
            and of C{[dns] hosts}. Fails with L{DNSError} if that cannot be told: then the host
            must not be used.
        """
        key = host.lower().removesuffix(".")
        if key in self._hosts or ":" in key or key.replace(".", "").isdigit():
            return succeed(None)
        return Deferred.fromCoroutine(find_tlsa(self._asker, key, port))

    def lookup_text(self, name: str) -> Deferred[tuple[bytes, ...]]:
        """Find the TXT records of a name (RFC 1035, 3.3.14).

        @param name: in A-labels. Below a name of C{[dns] hosts} nothing is looked up.
        @return: fires with the records, the strings of each joined; empty if there are none. Fails
            with L{DNSError}.
        """
        key = name.lower().removesuffix(".")
        if key.partition(".")[2] in self._hosts:
            return succeed(())
        try:
            question = host_question(key, dns.rdatatype.TXT)
        except DNSError as error:
            return fail(error)
        return self._asker.ask(question).addCallback(
            lambda answer: tuple(b"".join(record.strings) for record in answer.values)
        )

    # -- what others see of an address -------------------------------------------------------

    def lookup_pointer(self, address: IPAddress) -> Deferred[tuple[str, ...]]:
        """Find the names of an address: its PTR records (RFC 1035, 3.5; RFC 3596, 2.5).

        C{[dns] hosts} is not looked at: it says nothing of what others see.

        @return: fires with the names in lower case, without final dots, sorted, without what
            cannot be a host's name; empty if there are none. Fails with L{DNSError}.
        """
        try:
            question = host_question(address.reverse_pointer, dns.rdatatype.PTR)
        except DNSError as error:
            return fail(error)
        return self._asker.ask(question).addCallback(_host_names)

    def lookup_listing(
        self, address: IPAddress, zone: str
    ) -> Deferred[tuple[ipaddress.IPv4Address, ...]]:
        """Ask a DNS blocklist about an address (RFC 5782, 2.1 and 2.4).

        @param zone: the list's domain, in A-labels.
        @return: fires with the addresses that the list answers with, sorted; empty if it has no
            entry. What they mean is for the caller to judge. Fails with L{DNSError}.
        """
        digits = address.reverse_pointer.removesuffix(".in-addr.arpa").removesuffix(".ip6.arpa")
        try:
            question = host_question(f"{digits}.{zone.lower().removesuffix('.')}", dns.rdatatype.A)
        except DNSError as error:
            return fail(error)
        return self._asker.ask(question).addCallback(_listing_codes)


def _host_names(answer: Answer) -> tuple[str, ...]:
    names = {record.target.to_text(omit_final_dot=True).lower() for record in answer.values}
    return tuple(sorted(name for name in names if HOST_NAME.fullmatch(name)))[:_MAX_NAMES]


def _listing_codes(answer: Answer) -> tuple[ipaddress.IPv4Address, ...]:
    codes = sorted({ipaddress.IPv4Address(record.address) for record in answer.values})
    return tuple(codes[:_MAX_ADDRESSES])
