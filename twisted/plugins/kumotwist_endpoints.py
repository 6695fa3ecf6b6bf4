"""Registers our prefixes for C{twisted.internet.endpoints.clientFromString}."""

from kumotwist.endpoints.parsers import EndpointParser

socks5 = EndpointParser("socks5")
http_connect = EndpointParser("http-connect")
haproxy = EndpointParser("haproxy")
