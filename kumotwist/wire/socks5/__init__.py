"""SOCKS5 (RFC 1928, RFC 1929) as machines without I/O, for both sides."""
