"""Whether an address has a name that leads back to it, and what EHLO says of that."""

from __future__ import annotations

import ipaddress

from twisted.internet.defer import Deferred, gatherResults

from kumotwist.check.addresses import why_not_public
from kumotwist.check.findings import Finding, Status
from kumotwist.dns.errors import DNSError
from kumotwist.interfaces import IResolver
from kumotwist.settings.types import IPAddress
from kumotwist.wire.smtp.replies import one_line

__all__ = ["rdns_findings"]

_CHECKS = ("ptr", "fcrdns", "ehlo")


async def rdns_findings(
    resolver: IResolver, address: IPAddress | None, ehlo_domain: str
) -> list[Finding]:
    """Answer C{ptr}, C{fcrdns} and C{ehlo} for an address.

    Receivers refuse mail from an address without a name, or whose name does not lead back
    (forward-confirmed reverse DNS; RFC 8601, 3). That the EHLO name is another one is legal (RFC
    5321, 4.1.4) as long as this holds; so that is a warning.

    @param address: the address that the world sees; L{None} if it is not known.
    """
    why = "nobody knows the address" if address is None else why_not_public(address)
    if address is None or why:
        return [Finding(check, Status.SKIPPED, why) for check in _CHECKS]
    try:
        names: tuple[str, ...] = await resolver.lookup_pointer(address)
    except DNSError as error:
        text = f"the PTR of {address} cannot be looked up: {one_line(error.text, 200)}"
        return [
            Finding("ptr", Status.WARNING, text),
            Finding("fcrdns", Status.SKIPPED, "not tried: the PTR is not known"),
            await _ehlo(resolver, address, ehlo_domain, ()),
        ]
    if not names:
        return [
            Finding("ptr", Status.FAILURE, f"{address} has no PTR: receivers will refuse its mail"),
            Finding("fcrdns", Status.SKIPPED, "not tried: there is no name"),
            await _ehlo(resolver, address, ehlo_domain, ()),
        ]
    confirmed, forward = await _forward(resolver, address, names)
    ptr = Finding("ptr", Status.OK, f"{address} is {_some(names)}", facts={"names": names})
    return [ptr, forward, await _ehlo(resolver, address, ehlo_domain, confirmed)]


def _some(names: tuple[str, ...]) -> str:
    return one_line(", ".join(names), 300)


async def _addresses(resolver: IResolver, name: str) -> tuple[IPAddress, ...] | None:
    """The addresses of a name; L{None} if that cannot be told."""
    try:
        found: tuple[IPAddress, ...] = await resolver.lookup_addresses(name)
    except DNSError:
        return None
    return found


async def _forward(
    resolver: IResolver, address: IPAddress, names: tuple[str, ...]
) -> tuple[tuple[str, ...], Finding]:
    """Which of the names lead back to the address."""
    looking = [Deferred.fromCoroutine(_addresses(resolver, name)) for name in names]
    answers = await gatherResults(looking)
    confirmed = tuple(
        name for name, found in zip(names, answers, strict=True) if found and address in found
    )
    facts = {"names": confirmed}
    if confirmed:
        text = f"{_some(confirmed)} leads back to {address}"
        return confirmed, Finding("fcrdns", Status.OK, text, facts=facts)
    if None in answers:
        text = f"{_some(names)} cannot be looked up"
        return (), Finding("fcrdns", Status.WARNING, text, facts=facts)
    text = f"{_some(names)} does not lead back to {address}: receivers will refuse its mail"
    return (), Finding("fcrdns", Status.FAILURE, text, facts=facts)


async def _ehlo(
    resolver: IResolver, address: IPAddress, ehlo_domain: str, confirmed: tuple[str, ...]
) -> Finding:
    """Whether the name in EHLO belongs to the address."""
    if ehlo_domain.startswith("["):
        literal = ehlo_domain.strip("[]").removeprefix("IPv6:")
        if ipaddress.ip_address(literal) == address:
            text = f"{ehlo_domain} is the address itself; receivers prefer a name"
        else:
            text = f"{ehlo_domain} is another address than {address}"
        return Finding("ehlo", Status.WARNING, text)
    if ehlo_domain in confirmed:
        return Finding("ehlo", Status.OK, f"{ehlo_domain} is the address's confirmed name")
    try:
        found = await resolver.lookup_addresses(ehlo_domain)
    except DNSError as error:
        text = f"{ehlo_domain} cannot be looked up: {one_line(error.text, 200)}"
        return Finding("ehlo", Status.WARNING, text)
    if not found:
        text = f"{ehlo_domain} has no address; some receivers refuse such names"
    elif address not in found:
        text = f"{ehlo_domain} is not {address} but {_some(tuple(map(str, found)))}"
    elif confirmed:
        text = f"{ehlo_domain} leads to {address}, whose own name is {_some(confirmed)}: legal"
    else:
        text = f"{ehlo_domain} leads to {address}, which has no confirmed name of its own"
    return Finding("ehlo", Status.WARNING, text)
