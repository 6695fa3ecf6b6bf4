"""Twisted protocols that pump L{kumotwist.wire.smtp}: the listener, the delivery side, the sink.

The listener's side: an L{ESMTPListenerFactory} listens wherever an endpoint lets it; its sessions
check syntax, order, limits and relaying, and ask an L{kumotwist.interfaces.IReception} for the
rest: whether a sender, a recipient and at last a message is taken. A message is answered with 250
only when the reception says that it is safe; if that takes too long the reception is told to undo
it and the client to come again. L{SinkReception} is the reception that keeps nothing.
"""

from kumotwist.smtp.listener import ESMTPListenerFactory
from kumotwist.smtp.session import ServerSession
from kumotwist.smtp.settings import ListenerSettings, SinkSettings
from kumotwist.smtp.sink import SinkReception, sink_factory

__all__ = [
    "ESMTPListenerFactory",
    "ListenerSettings",
    "ServerSession",
    "SinkReception",
    "SinkSettings",
    "sink_factory",
]
