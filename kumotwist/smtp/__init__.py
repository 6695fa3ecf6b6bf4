"""Twisted protocols that pump L{kumotwist.wire.smtp}: the listener, the delivery side, the sink.

The listener's side: an L{ESMTPListenerFactory} listens wherever an endpoint lets it; its sessions
check syntax, order, limits and relaying, and ask an L{kumotwist.interfaces.IReception} for the
rest: whether a sender, a recipient and at last a message is taken. A message is answered with 250
only when the reception says that it is safe; if that takes too long the reception is told to undo
it and the client to come again. L{SinkReception} is the reception that keeps nothing.

The delivery side: an L{ESMTPClient} is one connection to a server, for message after message; an
L{ESMTPClientFactory} sends a single one over any endpoint. What the server says about a message is
a L{TransactionOutcome}; what ends the session is an L{SMTPSessionError}.
"""

from kumotwist.smtp.client import (
    ESMTPClient,
    OutgoingTransaction,
    SMTPSessionError,
    Timeouts,
    TransactionOutcome,
)
from kumotwist.smtp.client_factory import ESMTPClientFactory
from kumotwist.smtp.listener import ESMTPListenerFactory
from kumotwist.smtp.session import ServerSession
from kumotwist.smtp.settings import ListenerSettings, SinkSettings
from kumotwist.smtp.sink import SinkReception, sink_factory

__all__ = [
    "ESMTPClient",
    "ESMTPClientFactory",
    "ESMTPListenerFactory",
    "ListenerSettings",
    "OutgoingTransaction",
    "SMTPSessionError",
    "ServerSession",
    "SinkReception",
    "SinkSettings",
    "Timeouts",
    "TransactionOutcome",
    "sink_factory",
]
