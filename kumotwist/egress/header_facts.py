"""What a PROXY v2 header says of a connection besides its two ends (C{ha_proxy_tlvs})."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import NamedTuple

from kumotwist.settings import SettingType
from kumotwist.settings.types import split_list
from kumotwist.wire.proxy_v2 import Tlv, TlvType

__all__ = ["HEADER_FACTS", "HeaderFact", "header_tlvs"]

#: Octets that HAProxy's receiver takes of an authority (its PP2_AUTHORITY_MAX) and of an ALPN.
_LONGEST = 255

_TYPES = {
    "unique-id": TlvType.UNIQUE_ID,
    "authority": TlvType.AUTHORITY,
    "alpn": TlvType.ALPN,
}


class HeaderFact(NamedTuple):
    """One fact that is asked for.

    @ivar word: C{unique-id}, C{authority} or C{alpn}.
    @ivar value: what to say; empty for what each connection has of its own: the id of its
        session, the name of its host.
    """

    word: str
    value: str = ""

    def __str__(self) -> str:
        return f"{self.word}={self.value}" if self.value else self.word


def _parse_fact(text: str) -> HeaderFact:
    word, equals, value = (part.strip() for part in text.partition("="))
    word = word.lower()
    if word not in _TYPES:
        raise ValueError(f"{text!r} is none of unique-id, authority, authority=NAME, alpn=NAME")
    if word == "unique-id" and equals:
        raise ValueError("unique-id takes no value: it is the id of the delivery session")
    if word == "alpn" and not value:
        raise ValueError("alpn needs a value (alpn=smtp)")
    if equals and not value:
        raise ValueError(f"{word}= has no value")
    if len(value.encode()) > _LONGEST or not value.isprintable():
        raise ValueError(f"the value of {word} cannot be said (up to {_LONGEST} printable octets)")
    return HeaderFact(word, value)


def _parse(text: str) -> tuple[HeaderFact, ...]:
    facts = tuple(_parse_fact(item) for item in split_list(text))
    for word in _TYPES:
        if sum(fact.word == word for fact in facts) > 1:
            raise ValueError(f"{word} is given twice")
    return facts


#: Facts, separated by commas.
HEADER_FACTS: SettingType[tuple[HeaderFact, ...]] = SettingType(
    "list of TLVs", _parse, lambda value: ", ".join(map(str, value))
)


def header_tlvs(facts: Iterable[HeaderFact], session_id: str, host: str) -> tuple[Tlv, ...]:
    """The TLVs for one connection; a fact that is not known is left out.

    @param session_id: the id of the delivery session.
    @param host: the name of the host that the connection leads to; an address says nothing that
        the header does not say anyway.
    """
    known = {"unique-id": session_id, "authority": "" if _is_address(host) else host}
    said = ((fact.word, fact.value or known.get(fact.word, "")) for fact in facts)
    return tuple(Tlv(_TYPES[word], value.encode()) for word, value in said if value)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
