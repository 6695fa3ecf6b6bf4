"""Envelope addresses: the domain that decides where a message goes."""

from __future__ import annotations

import idna

__all__ = ["domain_of"]


def domain_of(address: str) -> str:
    """The domain of an envelope address, in the one form that queues and DNS use.

    @param address: a mailbox without brackets, such as C{Jürgen@Bücher.example}; the local part
        may be quoted and contain C{@}.
    @return: the domain in lower case and A-labels, without a final dot; an address literal as it
        is, in lower case; empty if the address has no domain (the null sender, C{postmaster}).
    @raise ValueError: if the domain has characters that IDNA (RFC 5891; UTS 46) does not allow.
    """
    _, at, domain = address.rpartition("@")
    if not at:
        return ""
    if domain.isascii():
        return domain.lower().removesuffix(".")
    # uts46 folds what people type: capitals, full-width letters, the ideographic full stop.
    return idna.encode(domain.removesuffix("."), uts46=True).decode("ascii")
