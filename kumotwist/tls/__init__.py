"""TLS for both sides of SMTP, and what is demanded of it.

L{kumotwist.tls.server} makes the listeners' contexts, with a configured certificate or with a
self-signed one that is kept in the state directory; L{kumotwist.tls.client} those towards mail
hosts. L{kumotwist.tls.facts} tells what a handshake has agreed on, for the delivery records, the
C{Received} header and the listener's session. TLS 1.2 is the floor everywhere.

L{kumotwist.tls.policy} decides what is demanded of a host, from what the operator, the sender and
the destination say. The destination says it by TLSA records, which L{kumotwist.tls.dane} compares
with certificates, or by an MTA-STS policy: L{kumotwist.tls.sts} reads it,
L{kumotwist.tls.sts_policies} finds it and L{kumotwist.tls.sts_store} keeps it.
"""
