"""A reactor for many small messages: C{twistd --reactor=kumo-epoll …}; never required.

Twisted's epoll reactor with four differences, all in what an event or a connection costs:

  - An event is handled without a log context of its own. The context only names the connection in
    messages of the old logging system, and setting it up costs more than most events' work.
  - What is written to a connection that has nothing buffered is sent at once, instead of when the
    next turn of the loop finds the socket writable: two calls of C{epoll_ctl} and a turn less for
    each answer. Whatever the socket does not take at once is buffered as ever, so producers,
    half-close and the order of octets are Twisted's own.
  - A connection to an address is begun when it is asked for, not a turn later by way of a name
    look-up, and is registered with the kernel once for connecting and once for reading. A local
    address is bound without a port of its own (C{IP_BIND_ADDRESS_NO_PORT}), so that one address
    has as many ports as there are destinations times 28,000.
  - C{loseConnection} of a connection that has nothing to send ends it at the end of the turn,
    not when the socket is found to be writable.
"""

from kumotwist.reactor.loop import DirectEPollReactor, install

__all__ = ["DirectEPollReactor", "install"]
