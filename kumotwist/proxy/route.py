"""From where to where a CONNECT goes, or why it does not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from attrs import define

from kumotwist.proxy.outgoing import IDialer, describe, rep_for
from kumotwist.proxy.rules import Rules
from kumotwist.settings.types import IPAddress
from kumotwist.wire.socks5.format import Rep

__all__ = ["Refusal", "Route", "choose_route"]


class Route(NamedTuple):
    """A connection that may be made.

    @ivar source: the address that it leaves from; L{None} if it is not known before it stands.
    @ivar destination: the address that it goes to.
    """

    source: IPAddress | None
    destination: IPAddress


@define(frozen=True)
class Refusal:
    """Why nothing is connected.

    @ivar rep: the reply code for the client.
    @ivar reason: the words for the log.
    """

    rep: Rep
    reason: str


_OTHER_FAMILY = Refusal(Rep.ADDRESS_TYPE_NOT_SUPPORTED, "source and destination differ in family")


def choose_route(
    dialer: IDialer | None,
    rules: Rules,
    user: str | None,
    client: IPAddress | None,
    bound: IPAddress | None,
    destinations: Sequence[IPAddress],
    port: int,
) -> Route | Refusal:
    """Find the first destination that suits the source and that the rules permit.

    @param dialer: knows the system's own choice of a source; L{None} if that does not matter.
    @param rules: decide.
    @param user: the name of the login, if there was one.
    @param client: the client's address, if it has one.
    @param bound: what BIND bound, possibly the unspecified address, or L{None} without BIND.
    @param destinations: the addresses of the destination; at least one.
    @param port: the port there.
    """
    refusal = _OTHER_FAMILY
    for destination in destinations:
        if bound is not None and type(bound) is not type(destination):
            continue
        source = bound if bound is not None and int(bound) else None
        if source is None and dialer is not None:
            try:
                source = dialer.source_for(destination)
            except OSError as error:
                refusal = Refusal(rep_for(error), f"no way there: {describe(error)}")
                continue
        decision = rules.decide(user, client, source, destination, port)
        if decision.allowed:
            return Route(source, destination)
        refusal = Refusal(Rep.NOT_ALLOWED, f"refused by {decision.rule}")
    return refusal
