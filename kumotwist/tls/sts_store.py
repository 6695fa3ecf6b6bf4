"""MTA-STS policies that survive a restart: an append-only file of JSON lines.

A policy that was seen once holds until its C{max_age} is over, whatever DNS and the network say
meanwhile (RFC 8461, 5.1); so it has to be there after a restart, too. The file is a cache: a line
that cannot be read is left out, and if it cannot be written the policies hold in memory.
"""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any

import attrs
from twisted.logger import Logger

from kumotwist.tls.sts import MODES, STSPolicy

__all__ = ["KnownPolicy", "PolicyStore"]

#: Policies kept at most, and the names of mail hosts in all of them together.
_MAX_POLICIES = 20_000
_MAX_HOSTS = 200_000
#: Octets of the file beyond which it is written anew.
_MAX_FILE = 16 * 1024 * 1024


@attrs.define(frozen=True)
class KnownPolicy:
    """A policy that was fetched.

    @ivar policy: the policy.
    @ivar id: what the domain's TXT record called it.
    @ivar fetched: when; seconds since the epoch.
    """

    policy: STSPolicy
    id: str
    fetched: float

    @property
    def expires(self) -> float:
        """When it ceases to hold; seconds since the epoch."""
        return self.fetched + self.policy.max_age


class PolicyStore:
    """Policies by domain.

    @param path: the file; its directory must exist.
    """

    _log = Logger()

    def __init__(self, path: str) -> None:
        self._path = path
        self._known: OrderedDict[str, KnownPolicy] = OrderedDict()
        self._hosts = 0
        self._size = 0

    def __iter__(self) -> Iterator[KnownPolicy]:
        return iter(list(self._known.values()))

    def open(self, now: float) -> None:
        """Read the file, and write it anew without what does not hold any more."""
        try:
            with open(self._path, "rb") as stream:
                for line in stream:
                    known = _read(line)
                    if known is not None and known.fetched <= now < known.expires:
                        self._keep(known)
        except FileNotFoundError:
            return
        except OSError as error:
            self._complain(error)
            return
        self._rewrite()

    def get(self, domain: str, now: float) -> KnownPolicy | None:
        """The policy that holds for a domain."""
        known = self._known.get(domain)
        if known is None or known.expires <= now:
            return None
        self._known.move_to_end(domain)
        return known

    def put(self, known: KnownPolicy) -> None:
        """Keep a policy, in place of the one that the domain had before."""
        self._keep(known)
        if self._size > _MAX_FILE:
            self._rewrite()
            return
        line = _written(known)
        try:
            with open(self._path, "ab") as stream:
                stream.write(line)
                self._size = stream.tell()
        except OSError as error:
            self._complain(error)

    def _keep(self, known: KnownPolicy) -> None:
        domain = known.policy.domain
        before = self._known.pop(domain, None)
        self._hosts += len(known.policy.hosts) - (len(before.policy.hosts) if before else 0)
        self._known[domain] = known
        while len(self._known) > _MAX_POLICIES or (
            self._hosts > _MAX_HOSTS and len(self._known) > 1
        ):
            _, gone = self._known.popitem(last=False)
            self._hosts -= len(gone.policy.hosts)

    def _rewrite(self) -> None:
        lines: Iterable[bytes] = (_written(known) for known in self._known.values())
        try:
            with open(f"{self._path}.new", "wb") as stream:
                stream.writelines(lines)
                self._size = stream.tell()
            os.replace(f"{self._path}.new", self._path)
        except OSError as error:
            self._complain(error)

    def _complain(self, error: OSError) -> None:
        self._log.error(
            "{path}: {reason}; MTA-STS policies are kept in memory only",
            path=self._path, reason=error.strerror or str(error),
        )  # fmt: skip


def _written(known: KnownPolicy) -> bytes:
    fields = {**attrs.asdict(known.policy), "id": known.id, "fetched": known.fetched}
    return json.dumps(fields).encode("ascii") + b"\n"


def _read(line: bytes) -> KnownPolicy | None:
    try:
        fields: dict[str, Any] = json.loads(line)
        policy = STSPolicy(
            domain=str(fields["domain"]),
            mode=str(fields["mode"]),
            hosts=tuple(str(host) for host in fields["hosts"]),
            max_age=int(fields["max_age"]),
        )
        known = KnownPolicy(policy, str(fields["id"]), float(fields["fetched"]))
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return known if policy.mode in MODES else None
