"""The envelope of a message as commands say it, and what keeps it from being said.

RFC 5321, 4.1.1.2 and 4.1.1.3; RFC 1870 (SIZE); RFC 6152 (8BITMIME); RFC 6531 (SMTPUTF8); RFC 3461
(DSN).
"""

from __future__ import annotations

import re

import attrs

from kumotwist.wire.smtp.capabilities import Capabilities
from kumotwist.wire.smtp.data import is_canonical
from kumotwist.wire.smtp.replies import Reply
from kumotwist.wire.smtp.syntax import CommandSyntaxError, ascii_domain, parse_mailbox

__all__ = [
    "OutgoingTransaction",
    "mail_command",
    "message_refusal",
    "plain_commands",
    "rcpt_command",
    "recipient_refusal",
]

# The addresses that need no closer look: printable ASCII without quotes, brackets and backslashes.
_PLAIN_ADDRESS = re.compile(r"[!#-;=?-\[\]-~]{0,254}")
_PLAIN_PAIR = re.compile(r"[!#-;=?-\[\]-~]{0,254} [!#-;=?-\[\]-~]{1,254}")
# RFC 3461, 4: printable ASCII without "+" and "=", which stand as "+" and two digits.
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+")
_ADDRESS_TYPE = re.compile(r"[A-Za-z0-9-]+")
_NOTIFY = re.compile(r"NEVER|(?:SUCCESS|FAILURE|DELAY)(?:,(?:SUCCESS|FAILURE|DELAY)){0,2}")
# RFC 3461, 4.2 and 4.4
_MAX_ORCPT, _MAX_ENVID = 500, 100


@attrs.define(frozen=True, slots=False)  # without slots it is made in a third of the time
class OutgoingTransaction:
    """A message for one or more recipients at one site.

    @ivar sender: the envelope sender without brackets; empty for the null sender.
    @ivar recipients: the envelope recipients without brackets; at least one.
    @ivar body: the message, header included: CRLF line ends, not dot-stuffed.
    @ivar body_8bit: whether the message was declared as BODY=8BITMIME (RFC 6152). What its
        octets really need is looked at in any case.
    @ivar binary: whether it has octets that are no text in lines: it goes as BODY=BINARYMIME, by
        BDAT, or not at all (RFC 3030, 3).
    @ivar smtputf8: whether the message needs SMTPUTF8 whatever its addresses are: its header
        has characters beyond ASCII (RFC 6531, 3.4).
    @ivar requiretls: whether REQUIRETLS is said where it is offered (RFC 8689). That it is offered,
        over a connection that is safe enough, is for the caller to see to.
    @ivar ret: RET of the report that the sender wants, C{FULL} or C{HDRS}; usually empty (RFC
        3461, 4.3). This one and the following are as they stand in commands.
    @ivar envid: ENVID, in xtext; usually empty (RFC 3461, 4.4).
    @ivar notify: NOTIFY of each recipient, such as C{SUCCESS,FAILURE} (RFC 3461, 4.1); missing at
        the end, or empty, where nothing is wanted.
    @ivar orcpt: ORCPT of each recipient, such as C{rfc822;a@example.com} (RFC 3461, 4.2).
    @ivar line_ends_checked: whether the caller knows that every line end is CRLF. If not, all of
        the body is looked at once more before it is sent.
    @ivar plain: whether the caller knows besides that the body is all ASCII and that no line of it
        begins with a dot: then it is sent as it is and not looked at again.
    """

    sender: str
    recipients: tuple[str, ...]
    body: bytes = attrs.field(repr=False)
    body_8bit: bool = False
    binary: bool = False
    smtputf8: bool = False
    line_ends_checked: bool = False
    requiretls: bool = False
    ret: str = ""
    envid: str = ""
    notify: tuple[str, ...] = ()
    orcpt: tuple[str, ...] = ()
    plain: bool = False

    @property
    def needs_8bit(self) -> bool:
        """Whether there are octets above 127, which must not be sent to a 7-bit server."""
        return not self.body.isascii()

    @property
    def size(self) -> int:
        """Octets as RFC 1870 counts them: every line with its CRLF, the stuffing left out."""
        whole = not self.body or self.body.endswith(b"\r\n")
        return len(self.body) if whole else len(self.body) + 2


def plain_commands(
    transaction: OutgoingTransaction, capabilities: Capabilities
) -> tuple[str, str] | None:
    """MAIL and RCPT for one recipient of a message that needs nothing else said, as most do.

    @return: L{None} if a parameter or a refusal has to be thought of. Otherwise the commands are
        those of L{mail_command} and L{rcpt_command}, and nothing speaks against saying them.
    """
    sender, recipients, body = transaction.sender, transaction.recipients, transaction.body
    if (
        len(recipients) != 1
        or not transaction.line_ends_checked
        or transaction.body_8bit
        or transaction.binary
        or transaction.smtputf8
        or transaction.requiretls
        or transaction.ret
        or transaction.envid
        or transaction.notify
        or transaction.orcpt
        or not (transaction.plain or body.isascii())
        or not _PLAIN_PAIR.fullmatch(f"{sender} {recipients[0]}")
    ):
        return None
    rcpt = f"RCPT TO:<{recipients[0]}>"
    if not capabilities.size:
        return f"MAIL FROM:<{sender}>", rcpt
    size = transaction.size
    if size > capabilities.size_limit > 0:
        return None
    return f"MAIL FROM:<{sender}> SIZE={size}", rcpt


def mail_command(transaction: OutgoingTransaction, capabilities: Capabilities) -> str:
    """The MAIL command, with the parameters that the server understands."""
    parts = [f"MAIL FROM:<{_fitting(transaction.sender, capabilities)}>"]
    if capabilities.size:
        parts.append(f"SIZE={transaction.size}")
    if transaction.binary:
        parts.append("BODY=BINARYMIME")
    elif capabilities.eight_bit_mime and (transaction.body_8bit or transaction.needs_8bit):
        parts.append("BODY=8BITMIME")
    if capabilities.smtputf8 and (
        transaction.smtputf8
        or not transaction.sender.isascii()
        or not all(map(str.isascii, transaction.recipients))
    ):
        parts.append("SMTPUTF8")
    if transaction.requiretls and capabilities.has("REQUIRETLS"):
        parts.append("REQUIRETLS")
    if capabilities.dsn:
        if transaction.ret.upper() in {"FULL", "HDRS"}:
            parts.append(f"RET={transaction.ret.upper()}")
        if len(transaction.envid) <= _MAX_ENVID and _XTEXT.fullmatch(transaction.envid):
            parts.append(f"ENVID={transaction.envid}")
    return " ".join(parts)


def rcpt_command(transaction: OutgoingTransaction, index: int, capabilities: Capabilities) -> str:
    """The RCPT command for a recipient, with the parameters that the server understands.

    Parameters that are not well formed are left out: they never reach a command.
    """
    command = f"RCPT TO:<{_fitting(transaction.recipients[index], capabilities)}>"
    if not capabilities.dsn:
        return command
    notify = transaction.notify[index].upper() if index < len(transaction.notify) else ""
    if _NOTIFY.fullmatch(notify):
        command += f" NOTIFY={notify}"
    orcpt = transaction.orcpt[index] if index < len(transaction.orcpt) else ""
    kind, _, address = orcpt.partition(";")
    if len(orcpt) <= _MAX_ORCPT and _ADDRESS_TYPE.fullmatch(kind) and _XTEXT.fullmatch(address):
        command += f" ORCPT={orcpt}"
    return command


def message_refusal(transaction: OutgoingTransaction, capabilities: Capabilities) -> Reply | None:
    """Why this server cannot get this message at all, whoever it is for."""
    fault = _address_fault(transaction.sender)
    if fault:
        return Reply.of(553, "5.1.7", f"the sender cannot be put into a command: {fault}")
    limit = capabilities.size_limit
    if limit and transaction.size > limit:
        text = f"the message has {transaction.size} octets, the server takes at most {limit}"
        return Reply.of(552, "5.3.4", text)
    if transaction.binary:
        if not capabilities.binarymime:
            text = "the message has binary data, the server lacks BINARYMIME"
            return Reply.of(554, "5.6.3", text)
    elif not (transaction.line_ends_checked or is_canonical(transaction.body)):
        return Reply.of(554, "5.6.0", "the message has a CR or LF that is not part of a line end")
    elif not capabilities.eight_bit_mime and transaction.needs_8bit:
        return Reply.of(554, "5.6.3", "the message has 8-bit data, the server lacks 8BITMIME")
    sender = _fitting(transaction.sender, capabilities)
    if not capabilities.smtputf8 and (transaction.smtputf8 or not sender.isascii()):
        return Reply.of(554, "5.6.7", "the message needs SMTPUTF8, which the server lacks")
    return None


def recipient_refusal(recipient: str, capabilities: Capabilities) -> Reply | None:
    """Why this server cannot be asked about this recipient."""
    fault = _address_fault(recipient) if recipient else "it is empty"
    if fault:
        return Reply.of(553, "5.1.3", f"the recipient cannot be put into a command: {fault}")
    if not capabilities.smtputf8 and not _fitting(recipient, capabilities).isascii():
        return Reply.of(553, "5.6.7", "the address needs SMTPUTF8, which the server lacks")
    return None


def _address_fault(address: str) -> str:
    """What is wrong with an address, so that it could break out of its command; usually empty."""
    if _PLAIN_ADDRESS.fullmatch(address):
        return ""
    try:
        parse_mailbox(address)
    except CommandSyntaxError as error:
        return str(error)
    return ""


def _fitting(address: str, capabilities: Capabilities) -> str:
    """An address as the server can take it: without SMTPUTF8 a domain goes in A-labels, which
    helps where the local part is ASCII (RFC 6531, 3.2)."""
    if capabilities.smtputf8 or address.isascii():
        return address
    local_part, _, domain = address.rpartition("@")
    try:
        return f"{local_part}@{ascii_domain(domain)}" if local_part.isascii() else address
    except CommandSyntaxError:
        return address
