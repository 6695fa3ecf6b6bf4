"""TLS for both sides of SMTP.

L{kumotwist.tls.server} makes the listeners' contexts, with a configured certificate or with a
self-signed one that is kept in the state directory. L{kumotwist.tls.facts} tells what a handshake
has agreed on, for the delivery records, the C{Received} header and the listener's session. The
client's policy ladder (C{enable_tls}) stands in modules of its own beside them. TLS 1.2 is the
floor everywhere.
"""
