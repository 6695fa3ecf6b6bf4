"""C{kumo spool}: look at a spool, check it, and take messages out of it as files."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from kumotwist.message.queued import QueuedMessage
    from kumotwist.spool.inspection import Finding, Findings
    from kumotwist.spool.survey import Entry, Survey

__all__ = ["spool"]

#: Exit status for a spool that is not there, cannot be read, or belongs to a node.
UNUSABLE = 2

_Command = TypeVar("_Command", bound=Callable[..., Any])


@click.group()
def spool() -> None:
    """Look at a spool, check it, and take messages out of it."""


def _which(command: _Command) -> _Command:
    """The options that say which spool."""
    for option in (
        click.option("--path", metavar="DIR", help="The spool's directory, instead of -c."),
        click.option(
            "-c",
            "--config",
            default="etc/kumo.ini",
            show_default=True,
            help="The configuration that says where the spool is.",
        ),
    ):
        command = option(command)
    return command


def _directory(config: str, path: str | None) -> str:
    """The spool's directory."""
    if path is not None:
        return path
    from kumotwist.config import ConfigErrors, load

    try:
        configuration = load(config)
    except ConfigErrors as errors:
        _unusable(errors)
    return configuration.spool.path or os.path.join(configuration.node.state_dir, "spool")


def _unusable(problem: object) -> Any:
    click.echo(str(problem), err=True)
    sys.exit(UNUSABLE)


@spool.command("list")
@_which
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True, metavar="N")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each.")
def list_messages(config: str, path: str | None, limit: int, as_json: bool) -> None:
    """List messages, those due first; a node may be running.

    A damaged record is marked, and nothing of it is sure.
    """
    from kumotwist.spool.errors import SpoolError

    try:
        survey = _survey(config, path)
        entries, number = survey.by_due(limit), survey.count()
    except SpoolError as error:
        _unusable(error)
    for entry in entries:
        click.echo(json.dumps(_facts(entry)) if as_json else _line(entry))
    if not as_json:
        more = f", {len(entries)} shown" if number > len(entries) else ""
        click.echo(f"{number} messages{more}", err=True)


@spool.command()
@_which
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--all", "everything", is_flag=True, help="All messages, instead of IDs.")
@click.option(
    "--to",
    "target",
    default=".",
    show_default=True,
    metavar="DIR",
    type=click.Path(file_okay=False),
    help="Where the files go.",
)
def export(
    config: str, path: str | None, ids: tuple[str, ...], everything: bool, target: str
) -> None:
    """Write messages to files: ID.eml, and ID.json with the envelope.

    Nothing is changed; a node may be running. `kumo inject` hands an .eml file in again.

    \b
    Exit status: 0 all was written; 1 something is damaged or not there;
    2 the spool or the directory cannot be used.
    """
    from kumotwist.spool.errors import SpoolError

    if bool(ids) == everything:
        raise click.UsageError("name the messages to export, or say --all")
    try:
        survey = _survey(config, path)
        entries = survey.entries() if everything else survey.named(ids)
        os.makedirs(target, mode=0o700, exist_ok=True)
        written, complaints, seen = _export(survey, entries, target)
    except (SpoolError, OSError) as error:
        _unusable(error)
    complaints += [f"{each}: there is no such message" for each in ids if each not in seen]
    for complaint in complaints:
        click.echo(complaint, err=True)
    click.echo(f"{written} messages written to {target}", err=True)
    sys.exit(1 if complaints else 0)


def _export(
    survey: Survey, entries: Iterable[Entry], target: str
) -> tuple[int, list[str], set[str]]:
    """Write files.

    @return: how many messages were written, what is wrong, and the ids that were met.
    """
    from kumotwist.spool.errors import SpoolError

    written, complaints, seen, names = 0, [], set(), set()
    for entry in entries:
        message = entry.message
        body: bytes | None = None
        try:
            body = survey.body(message)
        except SpoolError as error:
            if entry.damage is None and survey.is_gone(message):
                continue  # delivered since its record was read
            complaints.append(f"{message.id}: {error}")
        seen.add(message.id)
        if entry.damage is not None:
            complaints.append(entry.damage)
        name = _file_name(message)
        if name in names:
            name += f"_{message.body_key}"
        names.add(name)
        path = os.path.join(target, name)
        _write(f"{path}.json", json.dumps(_facts(entry), indent=2).encode() + b"\n")
        if body is not None:
            _write(f"{path}.eml", body)
            written += 1
    return written, complaints, seen


def _file_name(message: QueuedMessage) -> str:
    """What its files are called; the id was read, so it may be anything if it is damaged."""
    return "".join(c if c.isalnum() else "_" for c in message.id)[:64]


def _write(path: str, content: bytes) -> None:
    """Write a file that only its owner can read: it is mail."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)


@spool.command()
@_which
@click.option("--dry-run", is_flag=True, help="Repair nothing.")
@click.option(
    "--discard", is_flag=True, help="Forget what stays damaged, for good; export it first."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(config: str, path: str | None, dry_run: bool, discard: bool, as_json: bool) -> None:
    """Verify every record and body of a spool, repair what can be, list what cannot.

    The node must not be running.

    \b
    Exit status: 0 all is well or was repaired; 1 something is damaged;
    2 the spool cannot be used, or a node has it.
    """
    from kumotwist.spool.errors import SpoolError
    from kumotwist.spool.repair import SpoolCheck

    if dry_run and discard:
        raise click.UsageError("--dry-run and --discard exclude each other")
    directory = _directory(config, path)
    discarded = 0
    try:
        with SpoolCheck(directory) as spool_check:
            findings = spool_check.foresee() if dry_run else spool_check.repair()
            if discard:
                discarded = spool_check.discard(findings)
    except SpoolError as error:
        _unusable(error)
    if as_json:
        click.echo(json.dumps(_report(directory, findings, discarded), indent=2))
    else:
        _show(directory, findings, discarded)
    # What could not be read was not looked at, so it cannot have been discarded knowingly.
    unread = any(each.kind.value == "database" for each in findings.damaged)
    sys.exit(1 if unread or (findings.damaged and not discard) else 0)


def _show(directory: str, findings: Findings, discarded: int) -> None:
    for finding in findings.wrong:
        state = f" (repaired: {finding.repaired})" if finding.repaired else ""
        click.echo(f"{finding.kind.value}: {finding.problem}{state}")
        for entry in finding.entries:
            click.echo(f"    {_line(entry)}")
    for each in findings.set_aside:
        click.echo(f"set aside: {each}")
    click.echo(
        f"{directory}: {findings.messages} messages, {findings.bodies} bodies, "
        f"{findings.octets} octets; {len(findings.wrong) - len(findings.damaged)} repaired, "
        f"{len(findings.damaged)} damaged" + (f", {discarded} discarded" if discarded else "")
    )


def _report(directory: str, findings: Findings, discarded: int) -> dict[str, Any]:
    return {
        "path": directory,
        "messages": findings.messages,
        "bodies": findings.bodies,
        "octets": findings.octets,
        "discarded": discarded,
        "set_aside": findings.set_aside,
        "findings": [_finding(each) for each in findings.wrong],
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "kind": finding.kind.value,
        "problem": finding.problem,
        "repaired": finding.repaired or None,
        "messages": [_facts(entry) for entry in finding.entries],
    }


def _survey(config: str, path: str | None) -> Survey:
    from kumotwist.spool.survey import Survey

    return Survey(_directory(config, path))


def _facts(entry: Entry) -> dict[str, Any]:
    message = entry.message
    return {
        "id": message.id,
        "sender": message.sender,
        "recipient": message.recipient,
        "queue": message.queue,
        "size": message.size,
        "created": _time(message.created),
        "due": _time(message.due),
        "attempts": message.attempts,
        "meta": message.meta,
        "damage": entry.damage,
    }


def _line(entry: Entry) -> str:
    """A line for people; what comes from peers is escaped."""
    message: QueuedMessage = entry.message
    text = (
        f"{message.id}  due {_time(message.due)}  {message.attempts} attempts  {message.size}  "
        f"<{message.sender}> <{message.recipient}>  {message.queue}"
    )
    if entry.damage is not None:
        text += "  DAMAGED"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _time(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError):
        return str(seconds)
