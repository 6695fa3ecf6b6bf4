"""What C{twistd --help-reactors} finds: the name only, the module is imported when it is chosen."""

from twisted.application.reactors import Reactor

kumo_epoll = Reactor(
    "kumo-epoll",
    "kumotwist.reactor.loop",
    "epoll for many small messages: no log context per event, writes are sent at once.",
)
