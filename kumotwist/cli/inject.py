"""C{kumo inject}: hand a message in over SMTP and show its life as it happens."""

from __future__ import annotations

import contextlib
import email.errors
import email.policy
import http.client
import re
import smtplib
import socket
import sys
import time
from collections.abc import Callable
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import Any

import click

from kumotwist.cli.events import Stream, clean, describe, parse_endpoint
from kumotwist.settings.types import HostPort, parse_host_port

__all__ = ["inject"]

#: Exit statuses, besides 0 for "delivered to everybody".
FAILED, REFUSED, UNDECIDED = 1, 2, 3

#: Seconds that the listener gets for each of its answers.
PATIENCE = 30

_LOST = frozenset({"bounce", "adminbounce", "expiration"})
_FINAL = _LOST | {"delivery"}
_OUTCOMES = _FINAL | {"transientfailure", "delayed"}


def build_message(sender: str, recipients: tuple[str, ...], subject: str, text: str) -> bytes:
    """A small but complete message.

    @raise click.UsageError: if what was given cannot be put into one.
    """
    plain = all(map(str.isascii, (sender, *recipients)))
    try:
        message = EmailMessage()
        message["From"] = sender or "postmaster@localhost"
        message["To"] = ", ".join(recipients)
        message["Subject"] = subject
        message["Date"] = formatdate(localtime=True)
        message["Message-ID"] = make_msgid(domain="kumo-inject.invalid")
        message.set_content(text)
        # An address beyond ASCII can only stand in a header of UTF-8 (RFC 6532).
        return message.as_bytes(policy=email.policy.SMTP if plain else email.policy.SMTPUTF8)
    except (ValueError, LookupError, AttributeError, email.errors.MessageError) as failure:
        raise click.UsageError(f"this makes no message: {clean(failure)}") from None


def hand_in(
    server: HostPort, sender: str, recipients: tuple[str, ...], message: bytes
) -> tuple[list[str], bool]:
    """Send the message to the listener.

    @return: the ids that the node gave it, and whether every recipient was accepted.
    @raise OSError: if the listener cannot be reached or refuses the whole.
    @raise ValueError: if an address cannot be put into a command.
    """
    # The name is given so that smtplib does not ask DNS for it.
    smtp = smtplib.SMTP(timeout=PATIENCE, local_hostname=socket.gethostname() or "localhost")
    try:
        _expect(smtp.connect(server.host, server.port), "the connection", 220)
        smtp.ehlo_or_helo_if_needed()
        _expect(smtp.mail(sender, _parameters(smtp, sender, recipients, message)), "MAIL")
        accepted = 0
        for recipient in recipients:
            code, words = smtp.rcpt(recipient)
            if code in (250, 251, 252):
                accepted += 1
            else:
                click.echo(f"refused    {clean(recipient)}: {_reply(code, words)}")
        if not accepted:
            raise OSError("the listener accepted none of the recipients")
        reply = _expect(smtp.data(message), "the message")
        # It is accepted: however the farewell ends, nothing about that changes.
        with contextlib.suppress(OSError):  # smtplib's exceptions are of that kind
            smtp.quit()
    finally:
        smtp.close()
    return re.findall(r"\b[0-9a-f]{32}\b", reply), accepted == len(recipients)


def _parameters(
    smtp: smtplib.SMTP, sender: str, recipients: tuple[str, ...], message: bytes
) -> list[str]:
    """The parameters of MAIL that the envelope and the message need."""
    parameters = []
    if not message.isascii() and smtp.has_extn("8bitmime"):
        parameters.append("BODY=8BITMIME")
    if not all(map(str.isascii, (sender, *recipients))):
        parameters.append("SMTPUTF8")
    return parameters


def _expect(answer: tuple[int, bytes], question: str, wanted: int = 250) -> str:
    """The text of an answer.

    @raise OSError: if it is not the wanted one.
    """
    code, words = answer
    if code != wanted:
        raise OSError(f"the listener answered {question} with {_reply(code, words)}")
    return words.decode("utf-8", "replace")


def _reply(code: int, words: bytes) -> str:
    return f"{code} {clean(' '.join(words.decode('utf-8', 'replace').splitlines()))}"


def _cause(failure: Exception) -> str:
    """Why the listener did not take the message, in words."""
    if isinstance(failure, smtplib.SMTPResponseException):
        words = failure.smtp_error
        answered = words if isinstance(words, bytes) else str(words).encode()
        return f"the listener answered {_reply(failure.smtp_code, answered)}"
    return clean(str(failure) or type(failure).__name__)


def watch(stream: Stream, ids: list[str], deadline: float) -> dict[str, str]:
    """Show what happens to the messages until each has met its fate, or nobody wants to wait.

    @return: the last event of every message that had a fate or an outcome to speak of.
    """
    fates: dict[str, str] = {}
    mine = set(ids)
    try:
        for event in stream.events(deadline):
            kind = event["event"]
            concerned = mine.intersection(event["ids"])
            if not concerned and kind != "missed":
                continue
            words = describe(event)
            if words:
                click.echo(f"{time.strftime('%H:%M:%S')}  {words}")
            if kind in _OUTCOMES:
                fates.update(dict.fromkeys(concerned, kind))
                if all(fates.get(message_id) in _FINAL for message_id in ids):
                    break
    except KeyboardInterrupt:
        click.echo("no longer watching", err=True)
    if stream.ended:
        click.echo(clean(stream.ended), err=True)
    return fates


def _status(fates: dict[str, str], ids: list[str], all_accepted: bool) -> int:
    outcomes = [fates.get(message_id) for message_id in ids]
    undecided = not all(outcome in _FINAL for outcome in outcomes)
    if undecided:
        click.echo("no decision yet; the message stays in the queue")
    if any(outcome in _LOST for outcome in outcomes):
        return FAILED
    if not all_accepted:
        return REFUSED
    return UNDECIDED if undecided else 0


def _address(_context: Any, _parameter: Any, given: Any) -> Any:
    """A callback for options that are addresses, one or several.

    smtplib would quietly make something else of what no address can be.
    """
    for text in (given,) if isinstance(given, str) else given:
        if not text.isprintable():
            raise click.BadParameter(f"{clean(text)!r} has characters that no address has")
    return given


def _checked(parse: Callable[[str], Any]) -> Callable[[Any, Any, str], Any]:
    """A callback for an option, from a function that raises L{ValueError}."""

    def callback(_context: Any, _parameter: Any, text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    return callback


@click.command()
@click.option(
    "--to",
    "recipients",
    multiple=True,
    required=True,
    callback=_address,
    help="A recipient; repeatable.",
)
@click.option(
    "--from",
    "sender",
    default="sender@example.org",
    callback=_address,
    help="The envelope sender.",
)
@click.option("--subject", default="A trial message", help="The subject.")
@click.option("--text", default="It works.\n", help="The text.")
@click.option(
    "--file", "source", type=click.File("rb"), help="Send this message instead (- for stdin)."
)
@click.option(
    "--server",
    default="127.0.0.1:2525",
    show_default=True,
    callback=_checked(parse_host_port),
    help="The ESMTP listener, HOST:PORT.",
)
@click.option(
    "--endpoint",
    envvar="KUMO_ENDPOINT",
    default="http://127.0.0.1:8000",
    show_default=True,
    callback=_checked(parse_endpoint),
    help="The node's [http] listener, which tells what happens.",
)
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="Seconds to watch.",
)
def inject(
    recipients: tuple[str, ...],
    sender: str,
    subject: str,
    text: str,
    source: Any,
    server: HostPort,
    endpoint: str,
    wait: float,
) -> None:
    """Hand a message in and show its life as it happens.

    \b
    Exit status: 0 delivered to everybody; 1 bounced or expired for somebody;
    2 not accepted by the node, for somebody or at all; 3 no decision yet (it
    stays in the queue).
    """
    if source:
        # A file has the line ends of its system, SMTP has its own (RFC 5321, 2.3.8).
        message = re.sub(rb"\r\n|\r|\n", b"\r\n", source.read())
    else:
        message = build_message(sender, recipients, subject, text)
    try:
        stream: Stream | None = Stream(endpoint)
    except (OSError, ValueError, http.client.HTTPException) as failure:
        click.echo(f"cannot watch through http://{endpoint}: {clean(failure)}", err=True)
        stream = None
    try:
        ids, all_accepted = hand_in(server, sender, recipients, message)
    except (OSError, ValueError) as failure:
        click.echo(f"not accepted by {server}: {_cause(failure)}", err=True)
        sys.exit(REFUSED)
    click.echo(f"accepted   by {server}: {', '.join(ids) or 'the node gave no id'}")
    if stream is None or not ids:
        sys.exit(UNDECIDED)
    fates = watch(stream, ids, time.monotonic() + wait)
    sys.exit(_status(fates, ids, all_accepted))
