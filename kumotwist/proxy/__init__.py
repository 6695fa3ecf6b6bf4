"""KumoProxy: a SOCKS5 server for the machine that owns the source addresses of mail.

A client greets, logs in if it must, chooses the source of its connection with BIND, names the
destination with CONNECT, and from then on speaks with the destination. RFC 1928 and RFC 1929 apply,
except that BIND is KumoMTA's: it binds a source address and answers at once.

How a client's connection goes through this package:

 - L{kumotwist.proxy.session} is the protocol on it. What the octets mean is known to
   L{kumotwist.wire.socks5.server}; whether a login is right, to a Twisted cred checker
   (L{kumotwist.logins}).
 - L{kumotwist.proxy.route} finds where it goes and asks L{kumotwist.proxy.rules}: the first
   matching C{[proxy-rule:NAME]} decides, else the default, which keeps off every port that is not
   for mail, loopback, link-local addresses and the proxy itself.
 - L{kumotwist.proxy.limits} counts, for each source address, what is open and how fast it opens.
 - L{kumotwist.proxy.outgoing} binds and connects a socket.
 - L{kumotwist.proxy.relay} carries the stream.

L{ProxyService} is all of that for one listener; L{build_proxies} makes those of a process::

    proxies = build_proxies(reactor, {"local": ProxySettings(listen="tcp:5000")})
    proxies.startService()
"""

from kumotwist.proxy.counters import ProxyCounters
from kumotwist.proxy.descriptors import raise_descriptor_limit
from kumotwist.proxy.service import ProxyError, ProxyService, build_proxies
from kumotwist.proxy.settings import ProxyRuleSettings, ProxySettings

__all__ = [
    "ProxyCounters",
    "ProxyError",
    "ProxyRuleSettings",
    "ProxyService",
    "ProxySettings",
    "build_proxies",
    "raise_descriptor_limit",
]
