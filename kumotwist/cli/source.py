"""C{kumo source check}: what is true of egress sources right now, without a running node."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import attrs
import click

if TYPE_CHECKING:
    from kumotwist.check import CheckSettings, SourceChecker, SourceReport, Status, Subject
    from kumotwist.config import Configuration
    from kumotwist.dns.settings import DNSSettings

__all__ = ["source"]

#: Exit status for a command line or a configuration that cannot be; 1 is for sources that fail.
UNUSABLE = 2

_COLOURS = {"ok": "green", "warning": "yellow", "failure": "red"}


@click.group()
def source() -> None:
    """Look at egress sources."""


@source.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "-c", "--config", "path", default="etc/kumo.ini", show_default=True, help="The configuration."
)
@click.option("--mx", metavar="HOST[:PORT]", help="A mail host to visit, instead of [check] mx.")
@click.option(
    "--echo", metavar="ADDR:PORT", help="A peer that says what it sees, instead of [check] echo."
)
@click.option(
    "--blocklist",
    "blocklists",
    multiple=True,
    metavar="ZONE",
    help="A DNS blocklist to ask, instead of [check] blocklists; repeatable.",
)
@click.option("--timeout", metavar="DURATION", help="Instead of [check] timeout.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--strict", is_flag=True, help="Let warnings, and what is not known, fail.")
def check(
    names: tuple[str, ...],
    path: str,
    mx: str | None,
    echo: str | None,
    blocklists: tuple[str, ...],
    timeout: str | None,
    as_json: bool,
    strict: bool,
) -> None:
    """Check sources, each through its real path, from the configuration file alone.

    Without names, those that a pool in use gives mail to.

    \b
    Exit status: 0 all is well (warnings, and ways that were not followed to the
    end for want of --mx, count only with --strict); 1 a source fails; 2 the
    command line or the configuration cannot be used.
    """
    from kumotwist.config import ConfigErrors, load

    try:
        configuration = load(path)
    except ConfigErrors as errors:
        click.echo(str(errors), err=True)
        sys.exit(UNUSABLE)
    given = {"mx": mx, "echo": echo, "blocklists": ",".join(blocklists) or None, "timeout": timeout}
    settings = override(configuration.check, given)
    chosen, unchecked = choose(configuration, names)
    subjects = subjects_of(configuration, settings, chosen)
    checker, reports = _run(configuration, settings, subjects)
    _show(checker, reports, unchecked, as_json)
    from kumotwist.check import exit_status

    sys.exit(exit_status(reports, strict=strict))


def override(settings: CheckSettings, given: dict[str, str | None]) -> CheckSettings:
    """The settings with what the command line says."""
    from kumotwist.settings import declared

    values: dict[str, Any] = {}
    for key, (attribute, facts) in declared(type(settings)).items():
        text = given.get(key)
        if text is None:
            continue
        try:
            values[attribute.name] = facts.kind.parse(text)
        except ValueError as error:
            raise click.UsageError(f"--{key.removesuffix('s')}: {error}") from None
    return attrs.evolve(settings, **values)


def choose(
    configuration: Configuration, names: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The sources to check, and those of the file that are left out.

    A source that no queue's pool gives a weight to sends nothing; it is checked if it is named.
    """
    import difflib

    sources = configuration.sources
    if names:
        for name in names:
            if name not in sources:
                near = difflib.get_close_matches(name, sources, n=1)
                hint = f" (did you mean {near[0]}?)" if near else ""
                raise click.UsageError(f"there is no source {name!r}{hint}")
        return tuple(dict.fromkeys(names)), ()
    queues = configuration.queues
    pools = {queues.default.egress_pool}
    pools.update(
        rule.values.get("egress_pool", queues.default.egress_pool) for rule in queues.rules
    )
    used = {
        entry.source
        for name in pools
        for entry in configuration.pools[name].entries
        if entry.weight
    }
    chosen = tuple(name for name in sources if name in used)
    if not chosen:
        raise click.UsageError("no pool in use gives mail to any source (name those to check)")
    return chosen, tuple(name for name in sources if name not in used and name != "unspecified")


def subjects_of(
    configuration: Configuration, settings: CheckSettings, names: Sequence[str]
) -> list[Subject]:
    """The sources with the names that they greet the mail host with."""
    from kumotwist.check import Subject
    from kumotwist.egress import Source

    site = "" if settings.mx is None else settings.mx.host.lower()
    subjects = []
    for name in names:
        found = configuration.sources[name]
        path = configuration.paths.resolve(site, site, name)
        hostname = path.ehlo_domain or found.ehlo_domain or configuration.node.hostname
        subjects.append(Subject(Source.of(found), hostname))
    return subjects


def hurried(dns: DNSSettings, settings: CheckSettings) -> DNSSettings:
    """How names are looked up for a check: no look-up takes longer than the check's timeout."""
    return attrs.evolve(dns, timeout=min(dns.timeout, settings.timeout))


def _run(
    configuration: Configuration, settings: CheckSettings, subjects: list[Subject]
) -> tuple[SourceChecker, list[SourceReport]]:
    """Run a reactor until everything is known."""
    from twisted.internet.defer import Deferred
    from twisted.internet.task import react

    from kumotwist.check import SourceChecker
    from kumotwist.dns import Resolver

    outcome: list[tuple[SourceChecker, list[SourceReport]]] = []
    interrupted: list[bool] = []

    def stopping() -> None:
        # By a signal, which cuts connections: what they show from then on is not true.
        interrupted.append(not outcome)

    async def work(reactor: Any) -> None:
        reactor.addSystemEventTrigger("before", "shutdown", stopping)
        dns = hurried(configuration.dns, settings)
        resolver = Resolver(reactor, dns)
        public = Resolver(reactor, attrs.evolve(dns, hosts={}))
        checker = SourceChecker(reactor, settings, resolver, public)
        outcome.append((checker, await checker.check(subjects)))

    try:
        react(lambda reactor: Deferred.fromCoroutine(work(reactor)))
    except SystemExit:
        if not outcome or any(interrupted):
            # Or a defect, which react has logged; neither means that a source fails.
            raise SystemExit(UNUSABLE) from None
    return outcome[0]


def _show(
    checker: SourceChecker, reports: list[SourceReport], unchecked: Sequence[str], as_json: bool
) -> None:
    from kumotwist.check import table, to_json

    if as_json:
        click.echo(json.dumps(to_json(reports, checker.blocklists, unchecked), indent=2))
        return
    for line in table(reports, _paint):
        click.echo(line)
    if unchecked:
        click.echo(f"not checked, since no pool in use gives them mail: {', '.join(unchecked)}")


def _paint(status: Status, text: str) -> str:
    colour = _COLOURS.get(status.value)
    return text if colour is None else click.style(text, fg=colour)
