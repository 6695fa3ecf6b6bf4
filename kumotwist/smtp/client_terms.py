"""What holds between a listener and one client: its settings in the forms that are used."""

from __future__ import annotations

from typing import NamedTuple

from kumotwist.smtp.relay import RelayControl
from kumotwist.smtp.settings import ListenerSettings
from kumotwist.wire.smtp.server_options import ServerOptions

__all__ = ["ClientTerms"]


class ClientTerms(NamedTuple):
    """The settings that hold for a client, and what is made of them.

    @ivar settings: the listener's, with what its networks say of the client over them.
    @ivar options: what the wire machine needs to know of them.
    @ivar relay: whom the client may send to.
    """

    settings: ListenerSettings
    options: ServerOptions
    relay: RelayControl
