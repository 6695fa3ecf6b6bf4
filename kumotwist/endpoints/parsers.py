"""The endpoint string parsers that C{twisted/plugins/kumotwist_endpoints.py} registers.

Every program that parses any endpoint string with a prefix that Twisted does not know itself
imports this module, so it imports next to nothing.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import (
    IStreamClientEndpoint,
    IStreamClientEndpointStringParserWithReactor,
)
from twisted.plugin import IPlugin
from zope.interface import implementer

__all__ = ["EndpointParser"]


@implementer(IPlugin, IStreamClientEndpointStringParserWithReactor)
class EndpointParser:
    """Makes endpoints of strings with one prefix, for C{clientFromString}.

    The arguments are those of L{kumotwist.endpoints.socks5Endpoint},
    L{kumotwist.endpoints.httpConnectEndpoint} and L{kumotwist.endpoints.haproxyEndpoint}::

        socks5:HOST:PORT:server=SERVER[:source=ADDR][:verifySource=no]
            [:username=U:password=P][:timeout=60]
        http-connect:HOST:PORT:server=SERVER[:username=U:password=P][:timeout=60]
        haproxy:HOST:PORT:server=SERVER:source=ADDR
            [:uniqueId=ID][:authority=NAME][:alpn=NAME][:timeout=60]

    SERVER is C{HOST\\:PORT} or a quoted client endpoint string.

    @ivar prefix: C{"socks5"}, C{"http-connect"} or C{"haproxy"}.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def parseStreamClient(self, reactor: Any, *args: Any, **kwargs: Any) -> IStreamClientEndpoint:
        """Make an endpoint; takes whatever C{clientFromString} found, to say what is wrong.

        @raise ValueError: naming the argument that cannot be, and why; never quoting a secret.
        """
        return self._parse(
            reactor,
            [_text(value) for value in args],
            {name: _text(value) for name, value in kwargs.items()},
        )

    def _parse(
        self, reactor: Any, positional: list[str], named: dict[str, str]
    ) -> IStreamClientEndpoint:
        from kumotwist.endpoints.kinds import parse_arguments

        for value in (*positional, *named.values()):
            if "{host}" in value or "{port}" in value:
                raise ValueError(f"{self.prefix}: there is nothing to put in place of {{host}}")
        return parse_arguments(self.prefix, positional, named).make(reactor, "", 0)


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8")
