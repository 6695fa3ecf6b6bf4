"""Registers C{socks5:} and C{haproxy:} for C{twisted.internet.endpoints.clientFromString}."""

from kumotwist.endpoints.parsers import EndpointParser

socks5 = EndpointParser("socks5")
haproxy = EndpointParser("haproxy")
