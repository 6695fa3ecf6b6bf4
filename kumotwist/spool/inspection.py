"""Checking a spool that nobody owns: every record, every body, every page of the database."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from enum import Enum

import attrs

from kumotwist.spool.errors import SpoolError
from kumotwist.spool.records import is_large
from kumotwist.spool.survey import Entry, Survey

__all__ = ["Finding", "Findings", "Kind", "inspect"]

# Lines of SQLite's integrity check that are kept.
_LINES = 20


class Kind(Enum):
    """What is wrong."""

    DATABASE = "database"
    RECORD = "record"
    BODY = "body"
    UNREFERENCED = "unreferenced"


@attrs.define
class Finding:
    """One thing that is wrong.

    @ivar kind: what it concerns.
    @ivar problem: in words.
    @ivar key: the key of the body concerned; 0 if it is no body's matter.
    @ivar entries: the messages concerned.
    @ivar repaired: how it was repaired; empty if it was not.
    """

    kind: Kind
    problem: str
    key: int = 0
    entries: list[Entry] = attrs.field(factory=list)
    repaired: str = ""


@attrs.define
class Findings:
    """What an inspection found.

    @ivar messages: how many messages there are, damaged ones included.
    @ivar bodies: how many bodies they share.
    @ivar octets: how many octets the sound bodies have.
    @ivar wrong: what is wrong.
    @ivar set_aside: what was, or would be, taken out of the spool and kept beside it, in words.
    """

    messages: int = 0
    bodies: int = 0
    octets: int = 0
    wrong: list[Finding] = attrs.field(factory=list)
    set_aside: list[str] = attrs.field(factory=list)

    @property
    def damaged(self) -> list[Finding]:
        """What is wrong and was not repaired."""
        return [finding for finding in self.wrong if not finding.repaired]


def inspect(survey: Survey) -> Findings:
    """Look at everything; nothing is changed.

    Takes about as long as reading all files, and memory for what is wrong only.
    """
    findings = Findings()
    for line in _integrity(survey):
        findings.wrong.append(Finding(Kind.DATABASE, line))
    try:
        _inspect_messages(survey, findings)
        for key in survey.unreferenced():
            findings.wrong.append(Finding(Kind.UNREFERENCED, f"no message has the body {key}", key))
    except (SpoolError, sqlite3.Error) as error:
        problem = f"it cannot be read on: {error}"
        findings.wrong.append(Finding(Kind.DATABASE, problem))
    return findings


def _integrity(survey: Survey) -> list[str]:
    try:
        rows = survey.connection.execute(f"PRAGMA integrity_check({_LINES})").fetchall()
    except sqlite3.Error as error:
        return [str(error)]
    lines = [
        line for row in rows for line in row[0].decode("utf-8", "backslashreplace").splitlines()
    ]
    return [] if lines == ["ok"] else lines[:_LINES]


def _inspect_messages(survey: Survey, findings: Findings) -> None:
    key: int | None = None
    broken: dict[int, Finding] = defaultdict(lambda: Finding(Kind.BODY, ""))
    for entry in survey.entries():
        message = entry.message
        findings.messages += 1
        if entry.damage is not None:
            findings.wrong.append(Finding(Kind.RECORD, entry.damage, entries=[entry]))
            if not message.body_key:
                continue  # its key could not be read: which body it had cannot be told
        if message.body_key != key:
            key = message.body_key
            findings.bodies += 1
            try:
                findings.octets += len(survey.body(message))
            except SpoolError as error:
                broken[key].problem = str(error)
                broken[key].key = key
        if key in broken:
            broken[key].entries.append(entry)
    findings.wrong += broken.values()


def large_ones(findings: Findings) -> list[Finding]:
    """Those of bodies that should be in segment files."""
    return [each for each in findings.wrong if each.kind is Kind.BODY and is_large(each.key)]
