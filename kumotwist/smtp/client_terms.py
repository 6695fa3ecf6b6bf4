"""What holds between a listener and one client: its settings in the forms that are used."""

from __future__ import annotations

import ipaddress
from typing import NamedTuple

from kumotwist.smtp.relay import UNIX, RelayControl
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

    def proxy_trust(self, host: str) -> bool | None:
        """Whether the client is a proxy.

        @param host: its address.
        @return: L{None} if no PROXY header is expected of it, else whether it is believed.
        """
        networks = self.settings.trusted_proxies
        if not (networks or self.settings.require_proxy_protocol):
            return None
        try:
            address = ipaddress.ip_address("127.0.0.1" if host == UNIX else host)
            trusted = any(address in network for network in networks)
        except ValueError:
            trusted = False
        if self.settings.require_proxy_protocol:
            # Without a list it was a section for the network of the proxies that required it.
            return trusted or not networks
        return True if trusted else None
