"""MTA-STS: what a domain says about the TLS of its mail hosts (RFC 8461), read from octets.

No I/O here: L{read_record} reads the domain's TXT records, L{read_policy} the file that it serves
over HTTPS.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import attrs

__all__ = [
    "MAX_POLICY_SIZE",
    "MODES",
    "Finding",
    "STSError",
    "STSPolicy",
    "read_policy",
    "read_record",
]

#: Octets of a policy file (RFC 8461, 3.3 suggests 64 KiB).
MAX_POLICY_SIZE = 65536
#: No policy is believed longer than this; seconds (RFC 8461, 3.2).
MAX_AGE = 31557600
MODES = ("enforce", "testing", "none")

_ID = re.compile(r"[A-Za-z0-9]{1,32}")
_FIELD = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9_.-]{0,31})\s*[=]\s*([^;=]*?)\s*")
_LINE = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,31})[ \t]*:[ \t]*(.*?)[ \t]*")
_PATTERN = re.compile(r"(\*\.)?[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")


class STSError(ValueError):
    """A policy that is not one."""


@attrs.define(frozen=True)
class STSPolicy:
    """A policy (RFC 8461, 3.2).

    @ivar domain: the mail domain that it is of.
    @ivar mode: C{enforce}, C{testing} or C{none}.
    @ivar hosts: the names that mail hosts may have, in lower case; C{*.} stands for one label.
    @ivar max_age: how long it holds, in seconds.
    """

    domain: str
    mode: str
    hosts: tuple[str, ...]
    max_age: int

    @property
    def lines(self) -> tuple[str, ...]:
        """The policy as TLS reports quote it (RFC 8460, 4.4)."""
        hosts = (f"mx: {host}" for host in self.hosts)
        return ("version: STSv1", f"mode: {self.mode}", *hosts, f"max_age: {self.max_age}")

    def allows(self, host: str) -> bool:
        """Whether a mail host is listed (RFC 8461, 4.1).

        @param host: in lower case and A-labels, without a final dot.
        """
        parent = host.partition(".")[2]
        return host in self.hosts or (bool(parent) and f"*.{parent}" in self.hosts)


@attrs.define(frozen=True)
class Finding:
    """What is known of a domain.

    @ivar policy: the policy that holds; L{None} if there is none.
    @ivar problem: why the domain's policy could not be had, in the words of TLS reports; empty
        if it has none, or if it could.
    """

    policy: STSPolicy | None = None
    problem: str = ""


def read_record(texts: Iterable[bytes]) -> str | None:
    """Read the TXT records of C{_mta-sts.DOMAIN} (RFC 8461, 3.1).

    @param texts: each record, its strings joined.
    @return: the policy's id; L{None} if the domain does not implement MTA-STS, which is also
        what two records mean.
    """
    ours = []
    for text in texts:
        version, _, rest = text.decode("ascii", "replace").partition(";")
        if re.fullmatch(r"v\s*=\s*STSv1\s*", version):
            ours.append(rest)
    if len(ours) != 1:
        return None
    for field in ours[0].split(";"):
        match = _FIELD.fullmatch(field)
        if match is not None and match.group(1) == "id":
            return match.group(2) if _ID.fullmatch(match.group(2)) else None
    return None


def read_policy(domain: str, octets: bytes) -> STSPolicy:
    """Read a policy file.

    @raise STSError: it is none.
    """
    if len(octets) > MAX_POLICY_SIZE:
        raise STSError(f"the policy is larger than {MAX_POLICY_SIZE} octets")
    try:
        lines = re.split(r"\r?\n", octets.decode("utf-8"))
    except UnicodeDecodeError:
        raise STSError("the policy is not text") from None
    found: dict[str, str] = {}
    hosts: dict[str, None] = {}
    for line in lines:
        if not line.strip():
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise STSError("the policy has a line that is no field")
        key, value = match.groups()
        if key == "mx":
            pattern = value.lower().removesuffix(".")
            if not _PATTERN.fullmatch(pattern):
                raise STSError("the policy names an mx that is no name")
            hosts[pattern] = None
        else:
            found.setdefault(key, value)  # of fields that are given twice the first counts
    return _checked(domain, found, tuple(hosts))


def _checked(domain: str, found: dict[str, str], hosts: tuple[str, ...]) -> STSPolicy:
    if found.get("version") != "STSv1":
        raise STSError("the policy's version is not STSv1")
    mode = found.get("mode", "")
    if mode not in MODES:
        raise STSError("the policy's mode is none of enforce, testing and none")
    max_age = found.get("max_age", "")
    if not re.fullmatch(r"[0-9]{1,10}", max_age):
        raise STSError("the policy's max_age is not a number")
    if not hosts and mode != "none":
        raise STSError("the policy names no mx")
    return STSPolicy(domain, mode, hosts, min(int(max_age), MAX_AGE))
