"""Byte formats as machines without I/O: no Twisted, no clock, no sockets.

Every machine has the same shape: bytes go in with ``receive_data``, facts come out of
``next_event`` (or ``NEED_DATA``), bytes to send are returned by the methods that say something,
and ``trailing_data`` is what arrived after the machine's own protocol ended. Two exceptions may
leave a machine and no other: L{kumotwist.wire.errors.LocalProtocolError} (the caller's fault)
and L{kumotwist.wire.errors.RemoteProtocolError} (the peer's).
"""
