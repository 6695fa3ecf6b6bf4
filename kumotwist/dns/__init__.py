"""Names to hosts and addresses, without blocking and without trusting the network.

L{Resolver} answers the two questions of a mail transfer agent: where does this domain's mail go
(L{Resolver.lookup_mx}), and which addresses has this host (L{Resolver.lookup_addresses}); and two
about how others see an address of ours: which names it has (L{Resolver.lookup_pointer}), and what
a blocklist says of it (L{Resolver.lookup_listing}). Beneath it L{kumotwist.dns.client} remembers
answers and L{kumotwist.dns.exchange} asks name servers over UDP and TCP; dnspython reads and writes
the octets and does nothing else here.

An error is permanent only when DNS says so (L{DNSError}): no answer is never taken for "no".
"""

from kumotwist.dns.errors import DNSError
from kumotwist.dns.exchangers import MailExchangers, before, site_name
from kumotwist.dns.resolver import Resolver
from kumotwist.dns.settings import DNSSettings
from kumotwist.dns.system import system_nameservers, trusted_servers
from kumotwist.dns.tlsa import TLSARecords

__all__ = [
    "DNSError",
    "DNSSettings",
    "MailExchangers",
    "Resolver",
    "TLSARecords",
    "before",
    "site_name",
    "system_nameservers",
    "trusted_servers",
]
