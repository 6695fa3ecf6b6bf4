"""Where a domain's mail goes: its hosts in order, and the name of the site they form."""

from __future__ import annotations

import random
from collections.abc import Container, Iterable, Sequence

import attrs

__all__ = ["MailExchangers", "before", "in_order", "site_name"]


@attrs.define(frozen=True)
class MailExchangers:
    """The hosts that take a domain's mail.

    @ivar domain: the domain that was asked for, in lower case, without a final dot.
    @ivar hosts: preference and name of each, in the order in which they are to be tried; names in
        lower case, without a final dot. A domain literal has its address as its one host.
    @ivar site_name: what KumoMTA calls the site: the same for all domains with the same hosts,
        whatever order a shuffle gave them.
    @ivar null_mx: whether the domain says that it takes no mail (RFC 7505); then there are no
        hosts, and the answer to its mail is C{556 5.1.10}.
    @ivar implicit: whether the domain has no MX and is its own host (RFC 5321, 5.1).
    @ivar secure: whether DNSSEC vouches for the hosts, or for there being no MX.
    """

    domain: str
    hosts: tuple[tuple[int, str], ...]
    site_name: str
    null_mx: bool = False
    implicit: bool = False
    secure: bool = False


def before(
    hosts: Sequence[tuple[int, str]], ourselves: Container[str]
) -> tuple[tuple[int, str], ...]:
    """The hosts that are nearer to the destination than we are (RFC 5321, 5.1).

    Where we are one of a domain's exchangers, those of the same preference and of worse ones would
    hand the mail back to us.

    @param ourselves: our own names, in lower case.
    @return: all hosts if we are not among them; none if we are the best.
    """
    ours = [preference for preference, name in hosts if name in ourselves]
    return tuple(host for host in hosts if not ours or host[0] < min(ours))


def in_order(
    hosts: Iterable[tuple[int, str]], chance: random.Random
) -> tuple[tuple[int, str], ...]:
    """Sort hosts by preference, and shuffle those of the same preference (RFC 5321, 5.1).

    @param chance: what to shuffle with.
    """
    shuffled = sorted(set(hosts))
    chance.shuffle(shuffled)
    return tuple(sorted(shuffled, key=lambda host: host[0]))


def site_name(hosts: Sequence[str]) -> str:
    """Fold host names into one name, label by label from the right, as KumoMTA does it.

    C{mta5.am0.yahoodns.net} and C{mta6.am0.yahoodns.net} give C{(mta5|mta6).am0.yahoodns.net}; a
    label that not every host has is followed by C{?}: C{mail?.example.com}. One host gives its own
    name.

    @param hosts: by preference, then by name, so that the result does not depend on chance.
    """
    names = [list(reversed(host.lower().strip(".").split("."))) for host in dict.fromkeys(hosts)]
    folded = []
    for level in range(max(map(len, names), default=0)):
        found = dict.fromkeys(name[level] for name in names if level < len(name))
        optional = any(len(name) <= level for name in names)
        choice = next(iter(found)) if len(found) == 1 else f"({'|'.join(found)})"
        folded.append(f"{choice}?" if optional else choice)
    return ".".join(reversed(folded))
