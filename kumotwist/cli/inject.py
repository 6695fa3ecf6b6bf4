"""C{kumo inject}: hand a message in over SMTP and show its life as it happens."""

from __future__ import annotations

import email.policy
import http.client
import json
import re
import smtplib
import socket
import sys
import time
from collections.abc import Iterator
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import Any

import click

__all__ = ["inject"]

#: Exit statuses, besides 0 for "delivered to everybody".
FAILED, REFUSED, UNDECIDED = 1, 2, 3

_FINAL = {"delivery", "bounce", "expiration"}


class Stream:
    """The node's live trace, read line by line.

    @param endpoint: C{http://HOST:PORT} of the node's C{[http]} listener.
    """

    def __init__(self, endpoint: str) -> None:
        host = endpoint.removeprefix("http://").rstrip("/")
        self._connection = http.client.HTTPConnection(host, timeout=5)
        self._connection.request("GET", "/api/trace/v1")
        self._response = self._connection.getresponse()
        if self._response.status != 200:
            words = self._response.read(500).decode("utf-8", "replace").strip()
            raise OSError(f"status {self._response.status}: {words}")
        if json.loads(self._response.readline()).get("event") != "watching":
            raise OSError("this is not kumotwist's trace")

    def events(self, deadline: float) -> Iterator[dict[str, Any]]:
        """Every event until the deadline (of C{time.monotonic})."""
        while (left := deadline - time.monotonic()) > 0:
            if self._connection.sock is not None:
                self._connection.sock.settimeout(left)
            try:
                line = self._response.readline()
            except TimeoutError:
                return
            if not line:
                return
            yield json.loads(line)


def show(event: dict[str, Any]) -> None:
    """Print one event for people."""
    words = describe(event)
    if words:
        click.echo(f"{time.strftime('%H:%M:%S')}  {words}")


def describe(event: dict[str, Any]) -> str:
    """One event in words; empty for one that tells people nothing."""
    way = "directly"
    if event.get("protocol"):
        way = f"through {event['protocol']} {event['server']}"
    kind = event["event"]
    recipient = event.get("recipient", "")
    match kind:
        case "reception":
            return f"received   {event['ids'][0]} for {recipient}, {event['size']} octets, on disk"
        case "queued":
            return f"queued     for site {event['site']}, source {event['source']} ({way})"
        case "connecting":
            return f"connecting to {event['target']} {way}"
        case "connected":
            tls = event.get("tls") or "not encrypted"
            left = f", leaving from {event['source_address']}" if event["source_address"] else ""
            return f"connected  to {event['target']} {way}{left}; {tls}"
        case "sending":
            return f"sending    to {event['host']}"
        case "failed":
            return f"failed     at {event['target']}: {event['reply']}"
        case "delivery":
            return f"delivered  to {recipient} at {event['host']}: {event['reply']}"
        case "bounce":
            return f"bounced    {recipient}: {event['reply']}"
        case "expiration":
            return f"expired    {recipient}: {event['reply']}"
        case "transientfailure":
            return f"not yet    {recipient}: {event['reply']}"
        case "delayed":
            return f"waiting    {recipient}: {event['reply']}"
        case "missed":
            return f"({event['count']} events were missed)"
    return ""


def build_message(sender: str, recipients: tuple[str, ...], subject: str, text: str) -> bytes:
    """A small but complete message."""
    message = EmailMessage()
    message["From"] = sender or "postmaster@localhost"
    message["To"] = ", ".join(recipients)
    message["Subject"] = subject
    message["Date"] = formatdate(localtime=True)
    message["Message-ID"] = make_msgid(domain="kumo-inject.invalid")
    message.set_content(text)
    return message.as_bytes(policy=email.policy.SMTP)


def hand_in(
    server: str, sender: str, recipients: tuple[str, ...], message: bytes
) -> tuple[list[str], bool]:
    """Send the message to the listener.

    @return: the ids that the node gave it, and whether every recipient was accepted.
    @raise OSError: if the listener cannot be reached or refuses the whole.
    """
    host, _, port = server.rpartition(":")
    with smtplib.SMTP(host.strip("[]"), int(port), timeout=30) as smtp:
        smtp.ehlo()
        _expect(smtp.mail(sender), "MAIL")
        accepted = 0
        for recipient in recipients:
            code, words = smtp.rcpt(recipient)
            if code in (250, 251, 252):
                accepted += 1
            else:
                click.echo(f"refused    {recipient}: {code} {words.decode('utf-8', 'replace')}")
        if not accepted:
            raise OSError("the listener accepted none of the recipients")
        reply = _expect(smtp.data(message), "DATA")
    return re.findall(r"\b[0-9a-f]{32}\b", reply), accepted == len(recipients)


def _expect(answer: tuple[int, bytes], command: str) -> str:
    code, words = answer
    text = words.decode("utf-8", "replace")
    if code != 250:
        raise OSError(f"the listener answered {command} with {code} {text}")
    return text


def watch(stream: Stream, ids: list[str], deadline: float) -> dict[str, str]:
    """Show what happens to the messages until each has met its fate.

    @return: the last event of every message that had a fate or an outcome to speak of.
    """
    fates: dict[str, str] = {}
    mine = set(ids)
    for event in stream.events(deadline):
        concerned = mine.intersection(event.get("ids", ()))
        if not concerned and event["event"] != "missed":
            continue
        show(event)
        for message_id in concerned:
            if event["event"] in _FINAL | {"transientfailure", "delayed"}:
                fates[message_id] = event["event"]
        if all(fates.get(message_id) in _FINAL for message_id in ids):
            break
    return fates


@click.command()
@click.option("--to", "recipients", multiple=True, required=True, help="A recipient; repeatable.")
@click.option("--from", "sender", default="sender@example.org", help="The envelope sender.")
@click.option("--subject", default="A trial message", help="The subject.")
@click.option("--text", default="It works.\n", help="The text.")
@click.option(
    "--file", "source", type=click.File("rb"), help="Send this message instead (- for stdin)."
)
@click.option(
    "--server", default="127.0.0.1:2525", show_default=True, help="The ESMTP listener, HOST:PORT."
)
@click.option(
    "--endpoint",
    envvar="KUMO_ENDPOINT",
    default="http://127.0.0.1:8000",
    show_default=True,
    help="The node's [http] listener, which tells what happens.",
)
@click.option("--wait", default=60.0, show_default=True, help="Seconds to watch.")
def inject(
    recipients: tuple[str, ...],
    sender: str,
    subject: str,
    text: str,
    source: Any,
    server: str,
    endpoint: str,
    wait: float,
) -> None:
    """Hand a message in and show its life as it happens.

    \b
    Exit status: 0 delivered to everybody; 1 bounced or expired for somebody;
    2 not accepted by the node; 3 no decision yet (it stays in the queue).
    """
    if source:
        # A file has the line ends of its system, SMTP has its own (RFC 5321, 2.3.8).
        message = re.sub(rb"\r\n|\r|\n", b"\r\n", source.read())
    else:
        message = build_message(sender, recipients, subject, text)
    try:
        stream: Stream | None = Stream(endpoint)
    except (OSError, ValueError, http.client.HTTPException) as failure:
        click.echo(f"cannot watch through {endpoint}: {failure}", err=True)
        stream = None
    try:
        ids, all_accepted = hand_in(server, sender, recipients, message)
    except (OSError, ValueError, smtplib.SMTPException, socket.gaierror) as failure:
        click.echo(f"not accepted by {server}: {failure}", err=True)
        sys.exit(REFUSED)
    click.echo(f"accepted   by {server}: {', '.join(ids) or 'the node gave no id'}")
    if stream is None or not ids:
        sys.exit(UNDECIDED)
    fates = watch(stream, ids, time.monotonic() + wait)
    sys.exit(_status(fates, ids, all_accepted))


def _status(fates: dict[str, str], ids: list[str], all_accepted: bool) -> int:
    outcomes = [fates.get(message_id) for message_id in ids]
    if any(outcome in {"bounce", "expiration"} for outcome in outcomes):
        return FAILED
    if not all(outcome == "delivery" for outcome in outcomes):
        click.echo("no decision yet; the message stays in the queue")
        return UNDECIDED
    return 0 if all_accepted else FAILED
