"""C{kumo queue}, C{inspect}, C{trace}, C{suspend}, C{resume}, C{orders}, C{bounce}, C{rebind}: what
waits in a node, looked at and steered through its HTTP listener."""

from __future__ import annotations

import glob
import http.client
import json
import os
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import click

from kumotwist.cli.events import clean, credentials, parse_endpoint

__all__ = ["COMMANDS"]

_KINDS = ("suspend", "suspend-ready-q", "bounce")


def _endpoint(command: Callable[..., None]) -> Callable[..., None]:
    return click.option(
        "--endpoint",
        default="http://127.0.0.1:8000",
        envvar="KUMO_ENDPOINT",
        show_default=True,
        help="The node's [http] listener; KUMO_TOKEN has its token.",
    )(command)


def _ask(endpoint: str, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """Ask a node; end the command with an error if it does not do what is asked."""
    try:
        connection = http.client.HTTPConnection(parse_endpoint(endpoint), timeout=60)
        text = None if body is None else json.dumps(body)
        headers = {"Content-Type": "application/json", **credentials()}
        connection.request(method, f"/api/{path}", text, headers)
        response = connection.getresponse()
        answer = json.loads(response.read())
    except (OSError, ValueError, http.client.HTTPException) as failure:
        raise click.ClickException(f"{endpoint}: {clean(failure)}") from None
    if response.status != 200:
        words = answer.get("error", "") if isinstance(answer, dict) else ""
        raise click.ClickException(clean(words) or f"status {response.status}")
    return answer


def _note_missing(answer: dict[str, Any]) -> None:
    """Say so, beside what is printed, if an answer lacks some workers' queues."""
    missing = answer.get("missing_workers")
    if missing:
        numbers = ", ".join(clean(each) for each in missing)
        click.echo(f"note: not complete, without the queues of worker {numbers}", err=True)


# -- looking ------------------------------------------------------------------------------------


@click.command("queue")
@click.option("--limit", default=20, show_default=True, help="So many queues of each kind.")
@click.option("--json", "as_json", is_flag=True, help="Print what the node says, as it says it.")
@_endpoint
def queue(endpoint: str, limit: int, as_json: bool) -> None:
    """Show what waits: counts, next due times, connections; the largest queues first."""
    found = _ask(endpoint, "GET", f"admin/queues/v1?limit={limit}")
    _note_missing(found)
    if as_json:
        click.echo(json.dumps(found))
        return
    click.echo(
        f"{found['scheduled_count_total']} messages in {found['scheduled_queue_count']} scheduled "
        f"queues, {found['parked_count']} wait for a source"
    )
    for each in found["scheduled"]:
        due = (each["next_due"] or "")[:19].replace("T", " ")
        click.echo(
            f"{each['count']:>9}  {clean(each['name']):<40} next {due} UTC, waits for "
            f"{each['waits_for']}"
        )
    if found["ready"]:
        click.echo("ready queues")
    for each in found["ready"]:
        waits = f", waits for {each['waits_for']}" if each["waits_for"] else ""
        click.echo(
            f"{each['count']:>9}  {clean(each['name']):<40} {each['connections']} of "
            f"{each['connection_limit']} connections{waits}"
        )


@click.command()
@click.argument("message_id", metavar="ID")
@click.option("--body", is_flag=True, help="Show the message itself too.")
@_endpoint
def inspect(endpoint: str, message_id: str, body: bool) -> None:
    """Show what is known of one message that waits."""
    path = f"admin/inspect-message/v1?id={quote(message_id)}&want_body={str(body).lower()}"
    message = _ask(endpoint, "GET", path)["message"]
    data = message.pop("data", None)
    for name, value in message.items():
        click.echo(f"{name}: {clean(value)}")
    if data is not None:
        click.echo()
        for line in data.splitlines():
            click.echo(clean(line))


@click.command()
@click.argument("message_id", metavar="ID")
@click.option(
    "--log",
    default=os.path.join("var", "log"),
    show_default=True,
    type=click.Path(file_okay=False),
    help="Where the node keeps its delivery records.",
)
def trace(message_id: str, log: str) -> None:
    """Tell one message's life, from the delivery records."""
    found = False
    for path in sorted(glob.glob(os.path.join(glob.escape(log), "*.jsonl"))):
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                for line in file:
                    if message_id in line:
                        found = _tell(line, message_id) or found
        except OSError as failure:
            raise click.ClickException(f"{path}: {failure.strerror}") from None
    if not found:
        raise click.ClickException(f"no record of {clean(message_id)} in {log}")


def _tell(line: str, message_id: str) -> bool:
    try:
        record = json.loads(line)
    except ValueError:
        return False  # a line that is being written
    if not isinstance(record, dict) or record.get("id") != message_id:
        return False
    response = record.get("response") or {}
    peer = record.get("peer_address") or {}
    used = record.get("source_address") or {}
    way = " ".join(
        f"{word} {clean(value)}"
        for word, value in (
            ("for", record.get("recipient")),
            ("queue", record.get("queue")),
            ("source", record.get("egress_source")),
            ("from", used.get("address")),
            ("through", used.get("protocol")),
            ("proxy", used.get("server")),
            ("host", peer.get("name")),
            ("at", peer.get("addr")),
        )
        if value
    )
    click.echo(
        f"{record.get('event_time', '')[:19]} {clean(record.get('type', '?'))} {way}: "
        f"{response.get('code', '')} {clean(response.get('content', ''))}"
    )
    return True


# -- steering -----------------------------------------------------------------------------------

_SELECTION = (
    click.option("--domain", help="The recipients' domain."),
    click.option("--routing-domain", help="The domain that the mail goes by."),
    click.option("--tenant", help="The tenant."),
    click.option("--campaign", help="The campaign."),
    click.option("--queue", "queue_names", multiple=True, help="A queue's whole name; repeatable."),
    click.option("--id", "ids", multiple=True, help="A message; repeatable."),
    click.option("--everything", is_flag=True, help="All messages: needed where nothing is said."),
    click.option("--dry-run", is_flag=True, help="Only show what would be touched."),
    click.option("--reason", default="by the kumo command", help="For the records and the list."),
)


#: The names of options that differ from those in requests.
_OPTIONS = {
    "queue_names": "queue", "ids": "id", "name": "ready-queue", "routing_domain": "routing-domain",
    "ready_queue": "ready-queue",
}  # fmt: skip


def _selects(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_SELECTION):
        command = option(command)
    return _endpoint(command)


def _selection(everything: bool, whom: dict[str, Any]) -> dict[str, Any]:
    """What a request says of whom it is about."""
    for name, value in whom.items():
        if value == "" or (isinstance(value, tuple) and "" in value):
            raise click.UsageError(f"--{_OPTIONS.get(name, name)} is empty")
    chosen = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in whom.items()
        if value
    }
    if not chosen and not everything:
        raise click.UsageError("say whom it is about, or --everything")
    if chosen and everything:
        raise click.UsageError("--everything leaves nobody out")
    return chosen


def _touches(endpoint: str, path: str, order: dict[str, Any]) -> None:
    """Show what an order would touch, or end the command if the order is wrong."""
    found = _ask(endpoint, "POST", path, {**order, "dry_run": True})
    _note_missing(found)
    click.echo(f"{found['total_matched']} messages in {len(found['matched'])} queues")
    for name, number in sorted(found["matched"].items(), key=lambda each: -each[1])[:20]:
        click.echo(f"{number:>9}  {clean(name)}")


@click.command()
@_selects
@click.option("--source", help="A source: it is not used, others of its pools are.")
@click.option("--ready-queue", help="A ready queue's name: SOURCE->SITE@smtp_client.")
@click.option("--duration", default="5m", show_default=True, help="How long.")
@click.option("--persist", is_flag=True, help="Let it survive a restart.")
def suspend(
    endpoint: str, everything: bool, dry_run: bool, reason: str, duration: str, persist: bool,
    source: str | None, ready_queue: str | None, **whom: Any,
) -> None:  # fmt: skip
    """Let queues (or a source) wait for a while."""
    path = "admin/suspend/v1"
    if source is not None or ready_queue is not None:
        path = "admin/suspend-ready-q/v1"
        selection = _selection(everything, {**whom, "source": source, "name": ready_queue})
        if len(selection) > 1:
            raise click.UsageError("a source, or a ready queue, is suspended for all alike")
    else:
        selection = _selection(everything, whom)
    order = {**selection, "reason": reason, "duration": duration, "persist": persist}
    _touches(endpoint, path, order)
    if not dry_run:
        answer = _ask(endpoint, "POST", path, order)
        click.echo(f"suspended for {duration}; to end it: kumo resume {answer['id']}")


@click.command()
@_selects
@click.option("--duration", default="5m", show_default=True, help="How long it holds.")
@click.option("--persist", is_flag=True, help="Let it survive a restart.")
@click.option("--report", is_flag=True, help="Tell the senders.")
@click.option("--source", help="What waits for this source now.")
@click.option("--suppress-logging", is_flag=True, help="Write no records.")
def bounce(
    endpoint: str, everything: bool, dry_run: bool, reason: str, duration: str, persist: bool,
    report: bool, suppress_logging: bool, source: str | None, **whom: Any,
) -> None:  # fmt: skip
    """Give messages up, those that wait and those that come while it holds."""
    selection = _selection(everything, {**whom, "source": source})
    order = {
        **selection, "reason": reason, "duration": duration, "persist": persist,
        "report": report, "suppress_logging": suppress_logging,
    }  # fmt: skip
    _touches(endpoint, "admin/bounce/v1", order)
    if not dry_run:
        answer = _ask(endpoint, "POST", "admin/bounce/v1", order)
        click.echo(f"bouncing for {duration}; to end it: kumo resume {answer['id']}")


@click.command()
@_selects
@click.option("--source", help="What waits for this source: it goes by another one.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="Repeatable.")
@click.option("--always-flush", is_flag=True, help="Make all of them due at once.")
@click.option("--suppress-logging", is_flag=True, help="Write no records.")
def rebind(
    endpoint: str, everything: bool, dry_run: bool, reason: str, source: str | None,
    settings: tuple[str, ...], always_flush: bool, suppress_logging: bool, **whom: Any,
) -> None:  # fmt: skip
    """Put messages into other queues: set campaign, tenant, domain, routing_domain or queue."""
    data = {}
    for each in settings:
        name, equals, value = each.partition("=")
        if not equals:
            raise click.UsageError(f"--set {each}: NAME=VALUE")
        data[name] = value
    selection = _selection(everything, {**whom, "source": source})
    if not data and not always_flush and not source:
        raise click.UsageError("say what to --set, or --always-flush")
    order = {
        **selection, "reason": reason, "data": data, "always_flush": always_flush,
        "suppress_logging": suppress_logging,
    }  # fmt: skip
    _touches(endpoint, "admin/rebind/v1", order)
    if not dry_run:
        _ask(endpoint, "POST", "admin/rebind/v1", order)
        click.echo("under way")


@click.command()
@_endpoint
def orders(endpoint: str) -> None:
    """List the suspensions and bounces that hold."""
    noted = False
    for kind in _KINDS:
        for order in _ask(endpoint, "GET", f"admin/{kind}/v1"):
            if not noted:
                _note_missing(order)
                noted = True
            known = {
                "id", "reason", "duration", "expires", "persist", "bounced", "total_bounced",
                "missing_workers",
            }  # fmt: skip
            whom = {name: value for name, value in order.items() if name not in known}
            words = " ".join(f"{name}={value}" for name, value in whom.items()) or "everything"
            bounced = f", {order['total_bounced']} bounced" if "total_bounced" in order else ""
            click.echo(
                f"{order['id']} {kind} {clean(words)} for {order['duration']}{bounced}: "
                f"{clean(order['reason'])}"
            )


@click.command()
@click.argument("order_ids", metavar="[ID]...", nargs=-1)
@_selects
@click.option("--source", help="A suspended source.")
@click.option("--ready-queue", help="A suspended ready queue.")
def resume(
    endpoint: str, order_ids: tuple[str, ...], everything: bool, dry_run: bool, reason: str,
    **whom: Any,
) -> None:  # fmt: skip
    """End suspensions (and bounces, by their ids): those that `kumo orders` shows by these ids, or
    those that were made for exactly this domain, tenant, campaign, queue, message or source."""
    known = {
        order["id"]: (kind, order)
        for kind in _KINDS
        for order in _ask(endpoint, "GET", f"admin/{kind}/v1")
    }
    chosen = list(order_ids)
    if not chosen:
        whom["name"] = whom.pop("ready_queue")
        wanted = _selection(everything, whom)
        chosen = [
            order_id
            for order_id, (kind, order) in known.items()
            if kind != "bounce" and all(order.get(name) == wanted[name] for name in wanted)
        ]
    unknown = [order_id for order_id in chosen if order_id not in known]
    if unknown or not chosen:
        raise click.ClickException(f"there is no order {clean(' '.join(unknown))}".strip())
    for order_id in chosen:
        kind, order = known[order_id]
        words = f"{order_id}: {kind} ({clean(order['reason'])})"
        if dry_run:
            click.echo(f"would end {words}")
        else:
            _ask(endpoint, "DELETE", f"admin/{kind}/v1", {"id": order_id})
            click.echo(f"ended {words}")


#: What the C{kumo} command gets from here.
COMMANDS = (queue, inspect, trace, suspend, resume, orders, bounce, rebind)
