"""The commands as a server reads them: a line, and the arguments of MAIL and RCPT (RFC 5321, 4.1).

What is wrong with a command is raised as the reply that it deserves (RFC 5321, 4.2.4 and 4.3.2;
RFC 3463, 3.6).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from kumotwist.wire.errors import RemoteProtocolError
from kumotwist.wire.smtp.dsn import parse_envid, parse_notify, parse_orcpt, parse_ret
from kumotwist.wire.smtp.events import Recipient, Transaction
from kumotwist.wire.smtp.replies import Reply
from kumotwist.wire.smtp.syntax import (
    PLAIN_PATH,
    CommandSyntaxError,
    decode_xtext,
    parse_mailbox,
    parse_parameters,
    parse_path,
)

if TYPE_CHECKING:
    from kumotwist.wire.smtp.server_options import ServerOptions

__all__ = [
    "ORDINARY",
    "CommandRefusedError",
    "read_hello",
    "read_line",
    "read_mail",
    "read_recipient",
    "recipient_path",
    "sender_path",
]

#: A whole line with a command as nearly all clients say them, so that it is read in one step: MAIL
#: or RCPT, whose groups are the verb and what L{sender_path} and L{recipient_path} would make of it
#: (the address, and what follows the path), or any verb of four letters with at most one word.
ORDINARY = re.compile(
    rf"(MAIL FROM|RCPT TO):{PLAIN_PATH}((?: SIZE=[0-9]{{1,20}})?)\r\n"
    r"|[A-Z]{4}(?: [!-~]{1,255}+)?\r\n".encode()
)

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_SIZE = re.compile(r"[0-9]{1,20}")

_NOT_UTF8 = Reply.of(501, "5.5.2", "the command is not UTF-8")
_CONTROLS = Reply.of(500, "5.5.2", "the command has control characters in it")
_NOT_ASCII = Reply.of(553, "5.6.7", "the address needs the SMTPUTF8 parameter")

_DSN_OF_MAIL: dict[str, Callable[[str | None], object]] = {"RET": parse_ret, "ENVID": parse_envid}
_DSN_OF_RCPT: dict[str, Callable[[str | None], object]] = {
    "NOTIFY": parse_notify,
    "ORCPT": parse_orcpt,
}


class CommandRefusedError(RemoteProtocolError):
    """A command cannot be obeyed as it stands.

    @ivar reply: what the client must be told.
    """

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


def read_line(line: bytes) -> str:
    """Decode a command line.

    @param line: without its CRLF; white space at its end is dropped (RFC 5321, 4.1.1).
    @return: the text, without control characters.
    @raise CommandRefusedError: for octets that no command has.
    """
    try:
        text = line.rstrip(b" \t").decode()
    except UnicodeDecodeError:
        raise CommandRefusedError(_NOT_UTF8) from None
    if text.isascii() and text.isprintable():
        return text
    if _CONTROL.search(text) is not None:
        raise CommandRefusedError(_CONTROLS)
    return text


def read_hello(argument: str) -> str:
    """The name in EHLO or HELO: one word, so that what a client calls itself can be recorded.

    It is not checked against anything (RFC 5321, 4.1.4 forbids to refuse mail for it), so names
    with an underscore, which are common, do.
    """
    if not argument or " " in argument or len(argument) > 255 or not argument.isascii():
        raise CommandRefusedError(Reply.of(501, "5.5.4", "EHLO and HELO need one host name"))
    return argument


def sender_path(argument: str) -> tuple[str, str]:
    """The path in the argument of MAIL: C{FROM:<address>} and parameters.

    One space behind the colon is let through, because many clients send it.

    @param argument: what follows C{MAIL} and its space.
    @return: the address without its brackets, and what follows the path.
    @raise CommandRefusedError: if there is no path.
    """
    if argument[:5].upper() != "FROM:":
        raise CommandRefusedError(Reply.of(501, "5.5.4", "the syntax is MAIL FROM:<address>"))
    start = 6 if argument[5:6] == " " else 5
    try:
        return parse_path(argument[start:], null=True)
    except CommandSyntaxError as error:
        raise CommandRefusedError(Reply.of(501, "5.1.7", str(error))) from None


def read_mail(path: tuple[str, str], options: ServerOptions, *, tls: bool = False) -> Transaction:
    """What MAIL opens.

    @param path: the sender, and its parameters; see L{sender_path}.
    @param options: what is offered, and the largest message that will be taken.
    @param tls: whether the connection is encrypted.
    @raise CommandRefusedError: if it cannot be obeyed.
    """
    sender, rest = path
    if not rest and sender.isascii():  # as most are
        return Transaction(sender, {}, [])
    parameters = _read_parameters(rest)
    for keyword, value in parameters.items():
        if keyword == "AUTH" and options.offers_auth(tls=tls):
            _check_submitter(value)
        elif keyword == "REQUIRETLS" and options.requiretls:
            _check_requiretls(value, tls)
        else:
            _check_mail_parameter(keyword, value, options)
    if "SMTPUTF8" not in parameters and not sender.isascii():
        raise CommandRefusedError(_NOT_ASCII)
    return Transaction(sender, parameters, [])


def _read_parameters(text: str) -> dict[str, str | None]:
    try:
        return parse_parameters(text)
    except CommandSyntaxError as error:
        raise CommandRefusedError(Reply.of(501, "5.5.4", str(error))) from None


def _check_mail_parameter(keyword: str, value: str | None, options: ServerOptions) -> None:
    if keyword == "SIZE":
        if value is None or _SIZE.fullmatch(value) is None:
            raise CommandRefusedError(Reply.of(501, "5.5.4", "SIZE needs a number of octets"))
        most = options.max_message_size
        if int(value) > most:
            raise CommandRefusedError(
                Reply.of(552, "5.3.4", f"messages may have {most} octets, not {int(value)}")
            )
    elif keyword == "BODY":
        bodies = ("7BIT", "8BITMIME", *(("BINARYMIME",) if options.binarymime else ()))
        if value is None or value.upper() not in bodies:
            raise CommandRefusedError(Reply.of(501, "5.5.4", f"BODY is {' or '.join(bodies)}"))
    elif keyword == "SMTPUTF8":
        if value is not None:
            raise CommandRefusedError(Reply.of(501, "5.5.4", "SMTPUTF8 has no value"))
    elif keyword in _DSN_OF_MAIL:
        _check_dsn(_DSN_OF_MAIL[keyword], value)
    else:
        _refuse_parameter("MAIL", keyword)


def _check_requiretls(value: str | None, tls: bool) -> None:
    if value is not None:
        raise CommandRefusedError(Reply.of(501, "5.5.4", "REQUIRETLS has no value"))
    if not tls:  # RFC 8689, 4.1: it has come in clear already
        raise CommandRefusedError(Reply.of(530, "5.7.10", "REQUIRETLS needs TLS: say STARTTLS"))


def _check_dsn(parse: Callable[[str | None], object], value: str | None) -> None:
    try:
        parse(value)
    except CommandSyntaxError as error:
        raise CommandRefusedError(Reply.of(501, "5.5.4", str(error))) from None


def _check_submitter(value: str | None) -> None:
    """C{AUTH=} of MAIL (RFC 4954, 5). It is read and not believed: no client is trusted to say
    who somebody else is."""
    try:
        submitter = decode_xtext(value or "")
        if submitter != "<>":
            parse_mailbox(submitter)
    except CommandSyntaxError:
        raise CommandRefusedError(Reply.of(501, "5.5.4", "AUTH needs an address or <>")) from None


def _refuse_parameter(verb: str, keyword: str) -> None:
    raise CommandRefusedError(
        Reply.of(555, "5.5.4", f"{verb} parameter {keyword[:32]} is not supported")
    )


def recipient_path(argument: str) -> tuple[str, str]:
    """The path in the argument of RCPT: C{TO:<address>} and parameters.

    @param argument: what follows C{RCPT} and its space.
    @return: the address without its brackets, and what follows the path.
    @raise CommandRefusedError: if there is no path.
    """
    if argument[:3].upper() != "TO:":
        raise CommandRefusedError(Reply.of(501, "5.5.4", "the syntax is RCPT TO:<address>"))
    start = 4 if argument[3:4] == " " else 3
    try:
        return parse_path(argument[start:])
    except CommandSyntaxError as error:
        raise CommandRefusedError(Reply.of(501, "5.1.3", str(error))) from None


def read_recipient(path: tuple[str, str], *, utf8: bool) -> Recipient:
    """What RCPT names.

    @param path: the recipient, and its parameters, those of RFC 3461; see L{recipient_path}.
    @param utf8: whether MAIL had the SMTPUTF8 parameter (RFC 6531, 3.4).
    @raise CommandRefusedError: if it cannot be obeyed.
    """
    address, rest = path
    if not utf8 and not address.isascii():
        raise CommandRefusedError(_NOT_ASCII)
    if not rest:
        return Recipient(address, {})
    parameters = _read_parameters(rest)
    for keyword, value in parameters.items():
        if keyword in _DSN_OF_RCPT:
            _check_dsn(_DSN_OF_RCPT[keyword], value)
        else:
            _refuse_parameter("RCPT", keyword)
    return Recipient(address, parameters)
