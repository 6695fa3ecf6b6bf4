"""Handing mail in, with the standard library's client and with bare sockets."""

from __future__ import annotations

import contextlib
import smtplib
import socket
from collections.abc import Sequence

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

__all__ = ["MESSAGE", "converse", "message", "send_mail", "send_mail_blocking"]


def message(subject: str = "A trial", body: str = "Hello.\r\n", headers: str = "") -> bytes:
    """A message with the usual header fields, ended as on the wire."""
    text = (
        "From: Sender <sender@example.org>\r\n"
        "To: You <you@example.com>\r\n"
        f"Subject: {subject}\r\n"
        "Message-ID: <trial@example.org>\r\n"
        "Date: Sun, 22 Nov 2026 10:00:00 +0000\r\n"
        f"{headers}\r\n{body}"
    )
    return text.encode("utf-8")


MESSAGE = message()


def send_mail_blocking(
    port: int,
    recipients: Sequence[str] = ("you@example.com",),
    sender: str = "sender@example.org",
    body: bytes = MESSAGE,
    options: Sequence[str] = (),
) -> dict[str, tuple[int, bytes]]:
    """Hand a message in by SMTP; not to be called in the reactor's thread if a sink is there.

    @return: the refused recipients, as L{smtplib.SMTP.sendmail} gives them.
    @raise smtplib.SMTPException: it was refused.
    """
    with smtplib.SMTP("127.0.0.1", port, local_hostname="client.example.org", timeout=30) as client:
        return client.sendmail(sender, list(recipients), body, mail_options=list(options))


def send_mail(
    port: int,
    recipients: Sequence[str] = ("you@example.com",),
    sender: str = "sender@example.org",
    body: bytes = MESSAGE,
    options: Sequence[str] = (),
) -> Deferred[dict[str, tuple[int, bytes]]]:
    """L{send_mail_blocking} in a thread."""
    return deferToThread(send_mail_blocking, port, recipients, sender, body, options)


def _converse(port: int, data: Sequence[bytes], seconds: float) -> bytes:
    received = b""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection,
        contextlib.suppress(ConnectionError, TimeoutError),
    ):
        with contextlib.suppress(ConnectionError):
            for part in data:
                connection.sendall(part)
        while chunk := connection.recv(65536):
            received += chunk
    return received


def converse(port: int, *data: bytes, seconds: float = 20.0) -> Deferred[bytes]:
    """Write bytes to a port at once, in a thread, without waiting for any reply.

    @return: all that comes back until the other side closes, or is silent for C{seconds}; so the
        bytes should end with QUIT.
    """
    return deferToThread(_converse, port, data, seconds)
