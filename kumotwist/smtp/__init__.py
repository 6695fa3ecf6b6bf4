"""Twisted protocols that pump L{kumotwist.wire.smtp}: the listener, the delivery side, the sink."""
