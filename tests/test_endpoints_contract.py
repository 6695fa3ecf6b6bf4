"""What every endpoint that wraps another one must do, alone and stacked: one set of tests for all.

The numbers are those of the contract in C{docs/endpoints.md}.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, ClassVar, cast

import trustme
from attrs import define
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.error import ConnectingCancelledError, ConnectionDone, NoProtocol
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IHalfCloseableProtocol,
    IHandshakeListener,
    IProtocolFactory,
    IPushProducer,
    ISSLTransport,
    IStreamClientEndpoint,
    ITLSTransport,
    ITransport,
)
from twisted.internet.protocol import ClientFactory, Factory, Protocol, connectionDone
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyClass, verifyObject

from kumotwist.endpoints import (
    EgressError,
    ProxyConnectError,
    ProxyHop,
    SuspectedProxyError,
    haproxyEndpoint,
    socks5Endpoint,
)
from kumotwist.interfaces import IProxiedTransport
from kumotwist.testing.endpoints import MemoryConnection, MemoryEndpoint
from kumotwist.testing.scripted import Close, Expect, Hold, ScriptedServer, Send, Step

BANNER = b"220 mx ESMTP\r\n"
TIMEOUT = 60.0

CONNECT = Expect(b"\x05\x01\x00\x01\xc0\x00\x02\x01\x00\x19")
BIND = Expect(b"\x05\x02\x00\x01\x0a\x00\x00\x01\x00\x00")
BOUND = Send(b"\x05\x00\x00\x01\x0a\x00\x00\x01\xcf\xda")
UNKNOWN = Send(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
GREETING: list[Step] = [Expect(b"\x05\x01\x00"), Send(b"\x05\x00")]
SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
HEADER = Expect(SIGNATURE + b"\x21\x11\x00\x0c\x0a\x00\x00\x02\xc0\x00\x02\x01\x00\x00\x00\x19")


@functools.cache
def authority() -> trustme.CA:
    """A certificate authority for these tests."""
    return trustme.CA()


@functools.cache
def server_options(name: str) -> Any:
    """The TLS options of a server that can prove to be C{name}."""
    from twisted.internet.ssl import PrivateCertificate

    certificate = authority().issue_cert(name)
    pem = certificate.private_key_pem.bytes() + certificate.cert_chain_pems[0].bytes()
    return PrivateCertificate.loadPEM(pem).options()


def client_options(name: str) -> Any:
    """The TLS options of a client that wants to speak to C{name}."""
    root = Certificate.loadPEM(authority().cert_pem.bytes())
    return optionsForClientTLS(name, trustRoot=trustRootFromCertificates([root]))


@implementer(IHalfCloseableProtocol, IHandshakeListener)
class Application(Protocol):
    """Remembers what happens to it, in order."""

    pause_at_once = False

    def __init__(self) -> None:
        self.events: list[object] = []

    def logPrefix(self) -> str:
        """A name of its own."""
        return "the application"

    def connectionMade(self) -> None:
        """Remember."""
        self.events.append("made")
        if self.pause_at_once:
            cast(Any, self.transport).pauseProducing()

    def dataReceived(self, data: bytes) -> None:
        """Remember; what arrives in pieces is one."""
        if self.events and isinstance(self.events[-1], bytes):
            data = self.events.pop() + data  # type: ignore[operator]
        self.events.append(data)

    def readConnectionLost(self) -> None:
        """Remember."""
        self.events.append("read lost")

    def writeConnectionLost(self) -> None:
        """Remember."""
        self.events.append("write lost")

    def handshakeCompleted(self) -> None:
        """Remember."""
        self.events.append("handshake")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Remember."""
        self.events.append(reason.value)


verifyClass(IHalfCloseableProtocol, Application)


class Applications(ClientFactory):
    """Makes L{Application}s and counts."""

    noisy = False

    def __init__(self, answer: bool = True) -> None:
        self.built: list[Application] = []
        self.addresses: list[IAddress | None] = []
        self.started = 0
        self._answer = answer
        self.pause_at_once = False

    def startFactory(self) -> None:
        """Count."""
        self.started += 1

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """An application, or L{None} if that is wanted."""
        self.addresses.append(addr)
        if not self._answer:
            return None
        application = Application()
        application.pause_at_once = self.pause_at_once
        self.built.append(application)
        return application


class Echo(Protocol):
    """Says everything back."""

    def dataReceived(self, data: bytes) -> None:
        """Say it back."""
        assert self.transport is not None
        self.transport.write(data)


@implementer(IPushProducer)
@define(eq=False)
class Producer:
    """Remembers whether it may produce."""

    paused: bool = False
    stopped: bool = False

    def pauseProducing(self) -> None:
        """Remember."""
        self.paused = True

    def resumeProducing(self) -> None:
        """Remember."""
        self.paused = False

    def stopProducing(self) -> None:
        """Remember."""
        self.stopped = True


class Scene:
    """An endpoint under test, the scripted server that it reaches, and a clock."""

    def __init__(
        self, test: WrappingEndpointTests, steps: list[Step], then: Any = None, hold: bool = False
    ) -> None:
        self.clock = Clock()
        self.scripts: list[ScriptedServer] = []
        self._steps = steps
        self._then = then
        scripts = Factory.forProtocol(self._script)
        self.memory = MemoryEndpoint(
            self.clock,
            test.server_factory(scripts, self.clock),
            server_address=test.server_address,
            hold=hold,
        )
        self.endpoint = test.wrap(self.clock, self.memory)

    def _script(self) -> ScriptedServer:
        then = self._then() if self._then is not None else None
        self.scripts.append(ScriptedServer(self._steps, then))
        return self.scripts[-1]

    @property
    def connection(self) -> MemoryConnection:
        """The first connection to the proxy."""
        return self.memory.connections[0]

    def connect(self, factory: IProtocolFactory) -> Deferred[Any]:
        """Connect and let everything flow."""
        connecting: Deferred[Any] = self.endpoint.connect(factory)
        self.flush()
        return connecting

    def flush(self) -> None:
        """Let everything flow."""
        for connection in self.memory.connections:
            connection.flush()

    def release(self, number: int = 0) -> None:
        """Let a script go on."""
        self.scripts[number].release()
        self.flush()


if TYPE_CHECKING:
    _Mixin = SynchronousTestCase
else:
    _Mixin = object  # so that trial does not take the mixins for test cases


class WrappingEndpointTests(_Mixin):
    """The contract; a concrete test case says what is wrapped around what.

    @cvar steps: what the server expects and sends, all layers together, until the stream stands.
    @cvar hop: what C{getProxy} tells then.
    @cvar destination: what C{getPeer} tells.
    """

    steps: ClassVar[list[Step]]
    hop: ClassVar[ProxyHop]
    destination: ClassVar[IAddress] = IPv4Address("TCP", "192.0.2.1", 25)
    server_address: ClassVar[IAddress] = IPv4Address("TCP", "10.0.5.10", 5000)

    def wrap(self, clock: Clock, server: IStreamClientEndpoint) -> IStreamClientEndpoint:
        """The endpoint under test."""
        raise NotImplementedError

    def server_factory(self, scripts: IProtocolFactory, clock: Clock) -> IProtocolFactory:
        """The server's side, below the scripts."""
        return scripts

    # -- helpers ---------------------------------------------------------------------------------

    def scene(self, steps: list[Step] | None = None, **options: Any) -> Scene:
        """The endpoint and its server; by default one that lets it succeed."""
        return Scene(self, self.steps if steps is None else steps, **options)

    def replies(self) -> list[int]:
        """Where in the script the server answers."""
        return [number for number, step in enumerate(self.steps) if isinstance(step, Send)]

    def connected(self, scene: Scene) -> Any:
        """Connect; the application."""
        factory = Applications()
        self.assertEqual([self.successResultOf(scene.connect(factory))], factory.built)
        return factory.built[0]

    def assertCleanedUp(self, scene: Scene, factory: Applications) -> None:
        """Nothing is left: no socket, no timer, no protocol, no started factory."""
        scene.flush()
        self.assertEqual(scene.clock.getDelayedCalls(), [])
        for connection in scene.memory.connections:
            self.assertTrue(connection.client_transport.aborted)
            self.assertTrue(connection.server_transport.disconnected)
        self.assertEqual(factory.built, [])
        self.assertEqual(factory.numPorts, 0)

    # -- 1, 2: success ---------------------------------------------------------------------------

    def test_01_fires_when_negotiated(self) -> None:
        """connect() fires only after the last reply, with the caller's protocol."""
        held = self.replies()[-1:]
        steps = list(self.steps)
        for number in held:
            steps.insert(number, Hold())
        scene = self.scene(steps, hold=True)
        factory = Applications()
        connecting = scene.endpoint.connect(factory)
        self.assertNoResult(connecting)
        scene.memory.accept()
        scene.flush()
        if held:
            self.assertNoResult(connecting)
            self.assertEqual(factory.built, [])
            scene.release()
        self.assertIs(self.successResultOf(connecting), factory.built[0])
        self.assertEqual(factory.built[0].events, ["made"])
        self.assertEqual(factory.addresses, [self.destination])
        self.assertEqual(scene.clock.getDelayedCalls(), [])
        scene.scripts[0].assert_finished()

    def glued(self) -> list[Step]:
        """The script with a banner glued to the last reply, if there is one."""
        steps = list(self.steps)
        if isinstance(steps[-1], Send):
            steps[-1] = Send(steps[-1].data + BANNER)
        else:
            steps.append(Send(BANNER))
        return steps

    def test_02_glued_banner(self) -> None:
        """What comes in one segment with the last reply reaches the application, once."""
        scene = self.scene(self.glued())
        connecting: Deferred[Any] = scene.endpoint.connect(Applications())
        order: list[object] = []

        def look(made: Any) -> Any:
            order.append(list(made.events))
            return made

        connecting.addCallback(look)
        scene.flush()
        application = self.successResultOf(connecting)
        self.assertEqual(order, [["made"]])
        self.assertEqual(application.events, ["made", BANNER])

    def test_02_one_octet_at_a_time(self) -> None:
        """Replies and a banner that come octet by octet are the same."""
        steps: list[Step] = []
        for step in self.glued():
            if isinstance(step, Send):
                steps += [Send(step.data[n : n + 1]) for n in range(len(step.data))]
            else:
                steps.append(step)
        holding: list[Step] = []
        for before, step in zip([None, *steps], steps, strict=False):
            holding += [Hold(), step] if isinstance(before, Send) else [step]
        scene = self.scene(holding)
        connecting = scene.connect(Applications())
        while scene.scripts[0].steps:
            scene.release()
        self.assertEqual(self.successResultOf(connecting).events, ["made", BANNER])

    def test_02_paused_at_once(self) -> None:
        """An application that does not want to read yet is not given the glued banner."""
        scene = self.scene(self.glued())
        factory = Applications()
        factory.pause_at_once = True
        application = self.successResultOf(scene.connect(factory))
        self.assertEqual(application.events, ["made"])
        application.transport.resumeProducing()
        scene.flush()
        self.assertEqual(application.events, ["made", BANNER])

    def test_02_aborted_at_once(self) -> None:
        """An application that aborts as soon as it is connected is not given the banner."""
        scene = self.scene(self.glued())

        class Aborting(Application):
            def connectionMade(self) -> None:
                super().connectionMade()
                cast(Any, self.transport).abortConnection()

        application = Aborting()
        self.successResultOf(scene.connect(Factory.forProtocol(lambda: application)))
        self.assertEqual(application.events[0], "made")
        self.assertNotIn(BANNER, application.events)

    # -- 3, 4, 5, 6: failure ---------------------------------------------------------------------

    def test_03_no_protocol(self) -> None:
        """A factory that builds nothing aborts the connection."""
        scene = self.scene()
        factory = Applications(answer=False)
        self.failureResultOf(scene.connect(factory), NoProtocol)
        self.assertCleanedUp(scene, factory)

    def test_03_failing_factory(self) -> None:
        """A factory that raises an exception aborts the connection with it."""

        class Failing(Applications):
            def buildProtocol(self, addr: IAddress | None) -> Any:
                raise RuntimeError("no")

        scene, factory = self.scene(), Failing()
        self.failureResultOf(scene.connect(factory), RuntimeError)
        self.assertCleanedUp(scene, factory)

    def test_04_cancelled_while_connecting(self) -> None:
        """Cancelling while the proxy is being connected to gives that up."""
        scene = self.scene(hold=True)
        factory = Applications()
        connecting = scene.connect(factory)
        connecting.cancel()
        error = self.failureResultOf(connecting, ConnectingCancelledError).value
        self.assertEqual(error.address, self.destination)
        self.assertTrue(scene.memory.held[0].cancelled)
        self.assertCleanedUp(scene, factory)

    def test_04_cancelled_while_negotiating(self) -> None:
        """Cancelling at any point of the negotiation closes the connection at once."""
        for number in self.replies():
            scene = self.scene([*self.steps[:number], Hold()])
            factory = Applications()
            connecting = scene.connect(factory)
            connecting.cancel()
            self.failureResultOf(connecting, ConnectingCancelledError)
            self.assertTrue(scene.connection.client_transport.aborted)
            self.assertCleanedUp(scene, factory)

    def test_05_refused(self) -> None:
        """A proxy that cannot be connected to is a typed error that blames the proxy."""
        scene = self.scene(hold=True)
        factory = Applications()
        connecting = scene.connect(factory)
        scene.memory.held[0].refuse(ConnectionRefusedError("no"))
        error = self.failureResultOf(connecting, ProxyConnectError).value
        self.assertEqual((error.blames, error.phase), ("proxy", "connect"))
        self.assertCleanedUp(scene, factory)

    def test_05_closed(self) -> None:
        """A proxy that closes instead of answering is a typed error, at any point."""
        for number in self.replies():
            scene = self.scene([*self.steps[:number], Close()])
            factory = Applications()
            error = self.failureResultOf(scene.connect(factory), EgressError).value
            self.assertEqual(error.blames, "proxy")
            self.assertEqual(factory.built, [])
            self.assertEqual(factory.numPorts, 0)
            self.assertEqual(scene.clock.getDelayedCalls(), [])

    def test_05_garbage(self) -> None:
        """A proxy that answers something else is a typed error, at any point."""
        for garbage in (b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00", b"\xff" * 500):
            for number in self.replies():
                scene = self.scene([*self.steps[:number], Send(garbage)])
                factory = Applications()
                error = self.failureResultOf(scene.connect(factory), EgressError).value
                self.assertEqual(error.blames, "proxy")
                self.assertCleanedUp(scene, factory)

    def test_06_hung_while_connecting(self) -> None:
        """A proxy that does not accept in time is a typed error, and is given up."""
        scene = self.scene(hold=True)
        factory = Applications()
        connecting = scene.connect(factory)
        scene.clock.advance(TIMEOUT - 0.1)
        self.assertNoResult(connecting)
        scene.clock.advance(0.2)
        error = self.failureResultOf(connecting, ProxyConnectError).value
        self.assertEqual(error.blames, "proxy")
        self.assertTrue(scene.memory.held[0].cancelled)
        self.assertCleanedUp(scene, factory)

    def test_06_hung_while_negotiating(self) -> None:
        """A proxy that does not answer in time is a typed error, at any point."""
        for number in self.replies():
            scene = self.scene([*self.steps[:number], Hold()])
            factory = Applications()
            connecting = scene.connect(factory)
            scene.clock.advance(TIMEOUT - 0.1)
            self.assertNoResult(connecting)
            scene.clock.advance(0.2)
            error = self.failureResultOf(connecting, EgressError).value
            self.assertIn("within 60 s", str(error))
            self.assertCleanedUp(scene, factory)

    # -- 7, 8, 9: a good citizen -----------------------------------------------------------------

    def test_07_factory_is_started_and_stopped(self) -> None:
        """doStart and doStop are balanced when the connection ends."""
        scene, factory = self.scene(), Applications()
        application = self.successResultOf(scene.connect(factory))
        self.assertEqual((factory.started, factory.numPorts), (1, 1))
        application.transport.loseConnection()
        scene.flush()
        self.assertIsInstance(application.events[-1], ConnectionDone)
        self.assertEqual(factory.numPorts, 0)

    def test_08_log_prefix(self) -> None:
        """Log messages of the connection bear the application's name."""
        scene = self.scene()
        application = self.connected(scene)
        self.assertEqual(application.transport.logPrefix(), "the application")
        self.assertIn("the application", scene.connection.client_transport.protocol.logPrefix())

    def test_08_half_close_unknown_to_application(self) -> None:
        """For an application that does not know them, the end of one direction ends both."""
        scene = self.scene()
        protocol = Protocol()
        lost: list[Failure] = []
        protocol.connectionLost = lost.append  # type: ignore[method-assign,assignment]
        self.successResultOf(scene.connect(Factory.forProtocol(lambda: protocol)))
        scene.connection.half_close()
        scene.flush()
        self.assertEqual(len(lost), 1)

    def test_09_writing(self) -> None:
        """A producer is registered with the connection, which pauses and resumes it."""
        scene = self.scene()
        application, producer = self.connected(scene), Producer()
        application.transport.registerProducer(producer, True)
        below: Any = scene.connection.client_transport
        below.producer.pauseProducing()
        self.assertTrue(producer.paused)
        below.producer.resumeProducing()
        self.assertFalse(producer.paused)
        application.transport.unregisterProducer()
        self.assertIsNone(below.producer)

    def test_09_reading(self) -> None:
        """An application that pauses stops the reading from the proxy itself."""
        scene = self.scene(then=Echo)
        application = self.connected(scene)
        application.transport.pauseProducing()
        self.assertFalse(scene.connection.client_transport.reading)
        application.transport.write(b"hello")
        scene.flush()
        self.assertEqual(application.events, ["made"])
        application.transport.resumeProducing()
        scene.flush()
        self.assertEqual(application.events, ["made", b"hello"])

    def test_09_stream(self) -> None:
        """Octets flow both ways, and write and writeSequence are the same."""
        scene = self.scene(then=Echo)
        application = self.connected(scene)
        application.transport.write(b"EHLO me\r\n")
        application.transport.writeSequence([b"NO", b"OP\r\n"])
        scene.flush()
        self.assertEqual(application.events, ["made", b"EHLO me\r\nNOOP\r\n"])

    # -- 10: TLS with the destination ------------------------------------------------------------

    def test_10_start_tls(self) -> None:
        """startTLS makes TLS with the destination, whatever lies between."""
        scene: Scene = self.scene(
            then=lambda: self.destination_with_tls("mx.example.com", scene.clock)
        )
        application = self.connected(scene)
        transport = application.transport
        self.assertFalse(ISSLTransport.providedBy(transport))
        self.assertFalse(hasattr(transport, "getPeerCertificate"))
        producer = Producer()
        transport.registerProducer(producer, True)
        transport.startTLS(client_options("mx.example.com"))
        transport.write(b"EHLO me\r\n")
        scene.flush()
        self.assertEqual(application.events, ["made", "handshake", b"EHLO me\r\n"])
        self.assertTrue(ISSLTransport.providedBy(transport))
        verifyObject(ISSLTransport, transport)
        alternatives = transport.getPeerCertificate().to_cryptography().extensions
        self.assertIn("mx.example.com", str(alternatives))
        self.assertEqual(transport.getProxy(), self.hop)
        self.assertEqual(transport.getPeer(), self.destination)
        self.assertFalse(producer.stopped)
        transport.unregisterProducer()
        transport.loseConnection()
        scene.flush()
        self.assertIsInstance(application.events[-1], ConnectionDone)

    def destination_with_tls(self, name: str, clock: Clock) -> Any:
        """A destination that begins TLS as soon as it is connected to, and echoes."""
        echo = Factory.forProtocol(Echo)
        options = server_options(name)
        return TLSMemoryBIOFactory(options, False, echo, clock=clock).buildProtocol(None)

    def test_10_start_tls_with_somebody_else(self) -> None:
        """A certificate for another name ends the connection, and nothing was said."""
        scene: Scene = self.scene(
            then=lambda: self.destination_with_tls("evil.example", scene.clock)
        )
        application = self.connected(scene)
        application.transport.startTLS(client_options("mx.example.com"))
        application.transport.write(b"secret")
        scene.flush()
        self.assertNotIn("handshake", application.events)
        self.assertNotIsInstance(application.events[-1], ConnectionDone)
        self.assertIsInstance(application.events[-1], Exception)

    def test_10_tls_on_top(self) -> None:
        """wrapClientTLS around the endpoint shows the destination and the proxy all the same."""
        scene: Scene = self.scene(
            then=lambda: self.destination_with_tls("mx.example.com", scene.clock)
        )
        factory = Applications()
        on_top = wrapClientTLS(client_options("mx.example.com"), scene.endpoint, clock=scene.clock)
        connecting = on_top.connect(factory)
        scene.flush()
        application = cast(Any, self.successResultOf(connecting))
        application.transport.write(b"hello")
        scene.flush()
        self.assertEqual(application.events, ["made", "handshake", b"hello"])
        self.assertEqual(application.transport.getPeer(), self.destination)
        self.assertEqual(application.transport.getProxy(), self.hop)
        self.assertTrue(IProxiedTransport.providedBy(application.transport))

    # -- 11, 12, 13: identity --------------------------------------------------------------------

    def test_11_independent(self) -> None:
        """Two connections of one endpoint have nothing to do with each other."""
        scene = self.scene(then=Echo)
        first = self.successResultOf(scene.connect(Applications()))
        second = self.successResultOf(scene.connect(Applications()))
        first.transport.loseConnection()
        scene.flush()
        second.transport.write(b"hello")
        scene.flush()
        self.assertIsInstance(first.events[-1], ConnectionDone)
        self.assertEqual(second.events, ["made", b"hello"])

    def test_12_interfaces(self) -> None:
        """The endpoint and its transport provide what they claim to provide."""
        scene = self.scene()
        verifyObject(IStreamClientEndpoint, scene.endpoint)
        transport = self.connected(scene).transport
        for interface in (ITransport, ITLSTransport, IConsumer, IPushProducer, IProxiedTransport):
            verifyObject(interface, transport)
        verifyObject(IHalfCloseableProtocol, transport)

    def test_13_addresses(self) -> None:
        """The peer is the destination; the proxy and the source address have their own name."""
        scene = self.scene()
        transport = self.connected(scene).transport
        self.assertEqual(transport.getPeer(), self.destination)
        self.assertEqual(transport.getHost(), IPv4Address("TCP", "10.0.5.1", 40000))
        self.assertEqual(transport.getProxy(), self.hop)

    def test_13_tcp_options(self) -> None:
        """The options of TCP connections can be set and read, also where there is no TCP."""
        transport = self.connected(self.scene()).transport
        transport.setTcpKeepAlive(True)
        transport.setTcpNoDelay(True)
        self.assertIn(transport.getTcpKeepAlive(), (True, False))
        self.assertIn(transport.getTcpNoDelay(), (True, False))


class AnsweringProxyTests(WrappingEndpointTests):
    """Further clauses for stacks in which some proxy answers."""

    def test_06_one_deadline(self) -> None:
        """The time that connecting took is taken from the time for negotiating."""
        scene = self.scene([*self.steps[: self.replies()[0]], Hold()], hold=True)
        connecting = scene.connect(Applications())
        scene.clock.advance(TIMEOUT - 1)
        scene.memory.accept()
        scene.flush()
        self.assertNoResult(connecting)
        scene.clock.advance(1)
        self.failureResultOf(connecting, EgressError)

    def test_11_independent_negotiations(self) -> None:
        """Two negotiations of one endpoint have nothing to do with each other."""
        last = self.replies()[-1]
        scene = self.scene([*self.steps[:last], Hold(), *self.steps[last:]])
        first, second = scene.connect(Applications()), scene.connect(Applications())
        scene.release(1)
        self.assertNoResult(first)
        application = self.successResultOf(second)
        first.cancel()
        self.failureResultOf(first, ConnectingCancelledError)
        scene.flush()
        self.assertEqual(application.events, ["made"])
        self.assertIsNone(scene.scripts[1].lost)


class SilentProxyTests(WrappingEndpointTests):
    """Further clauses for stacks whose last proxy never answers."""

    def test_05_silent_close(self) -> None:
        """Where the last proxy never answers, closing before the first octet is suspicious."""
        scene = self.scene([*self.steps, Close()])
        application = self.connected(scene)
        made, error = application.events
        self.assertEqual(made, "made")
        self.assertIsInstance(error, SuspectedProxyError)
        self.assertIsInstance(error.cause, ConnectionDone)
        self.assertIn("192.0.2.1:25", str(error))


class HalfClosingTests(WrappingEndpointTests):
    """Further clauses where the connection to the proxy can be half-closed: not TLS."""

    def test_05_half_closed(self) -> None:
        """A proxy that ends its direction instead of answering is the same."""
        for number in self.replies():
            scene = self.scene([*self.steps[:number], Hold()])
            factory = Applications()
            connecting = scene.connect(factory)
            scene.connection.half_close()
            self.failureResultOf(connecting, EgressError)
            self.assertCleanedUp(scene, factory)

    def test_08_half_close(self) -> None:
        """An application that knows half-closed connections is told of them."""
        scene = self.scene()
        application = self.connected(scene)
        scene.connection.half_close()
        self.assertEqual(application.events, ["made", "read lost"])
        cast(Any, scene.connection.client_transport.protocol).writeConnectionLost()
        self.assertEqual(application.events[2:], ["write lost"])


# -- what is held to the contract ----------------------------------------------------------------


def socks5(
    clock: Clock,
    server: IStreamClientEndpoint,
    host: str = "192.0.2.1",
    port: int = 25,
    **more: Any,
) -> IStreamClientEndpoint:
    """The SOCKS5 endpoint as these tests want it."""
    return socks5Endpoint(clock, server, host, port, timeout=TIMEOUT, **more)


def haproxy(
    clock: Clock,
    server: IStreamClientEndpoint,
    host: str = "192.0.2.1",
    port: int = 25,
    **more: Any,
) -> IStreamClientEndpoint:
    """The HAProxy endpoint as these tests want it."""
    return haproxyEndpoint(clock, server, host, port, source="10.0.0.2", timeout=TIMEOUT, **more)


class SOCKS5Tests(AnsweringProxyTests, HalfClosingTests, SynchronousTestCase):
    """SOCKS5 without a source address."""

    steps = [*GREETING, CONNECT, UNKNOWN]
    hop = ProxyHop("socks5", "10.0.5.10:5000", "", "192.0.2.1:25")

    def wrap(self, clock: Clock, server: IStreamClientEndpoint) -> IStreamClientEndpoint:
        """SOCKS5."""
        return socks5(clock, server)


class SOCKS5WithEverythingTests(AnsweringProxyTests, HalfClosingTests, SynchronousTestCase):
    """SOCKS5 with a login and a source address."""

    steps = [
        Expect(b"\x05\x02\x00\x02"),
        Send(b"\x05\x02"),
        Expect(b"\x01\x04user\x06secret"),
        Send(b"\x01\x00"),
        BIND,
        BOUND,
        CONNECT,
        BOUND,
    ]
    hop = ProxyHop("socks5", "the proxy", "10.0.0.1:53210", "192.0.2.1:25")

    def wrap(self, clock: Clock, server: IStreamClientEndpoint) -> IStreamClientEndpoint:
        """SOCKS5 with a login and a source address."""
        return socks5(
            clock,
            server,
            source="10.0.0.1",
            username="user",
            password="secret",
            server_name="the proxy",
        )


class SOCKS5OverIPv6Tests(AnsweringProxyTests, HalfClosingTests, SynchronousTestCase):
    """SOCKS5 to an IPv6 destination, through a proxy with an IPv6 address."""

    steps = [
        *GREETING,
        Expect(b"\x05\x01\x00\x04" + bytes.fromhex("20010db8000000000000000000000001 0019")),
        UNKNOWN,
    ]
    destination = IPv6Address("TCP", "2001:db8::1", 25)
    server_address = IPv6Address("TCP", "2001:db8::5", 1080)
    hop = ProxyHop("socks5", "[2001:db8::5]:1080", "", "[2001:db8::1]:25")

    def wrap(self, clock: Clock, server: IStreamClientEndpoint) -> IStreamClientEndpoint:
        """SOCKS5."""
        return socks5(clock, server, "2001:db8::1")


class SOCKS5OverUnixTests(AnsweringProxyTests, HalfClosingTests, SynchronousTestCase):
    """SOCKS5 to a proxy on a Unix socket."""

    steps = SOCKS5Tests.steps
    server_address = UNIXAddress("/run/proxy")
    hop = ProxyHop("socks5", "unix:/run/proxy", "", "192.0.2.1:25")

    def wrap(self, clock: Clock, server: IStreamClientEndpoint) -> IStreamClientEndpoint:
        """SOCKS5."""
        return socks5(clock, server)


class SOCKS5OverSOCKS5Tests(AnsweringProxyTests, HalfClosingTests, SynchronousTestCase):
    """SOCKS5 through another SOCKS5 proxy."""

    steps = [
        *GREETING,
        Expect(b"\x05\x01\x00\x01\x0a\x00\x07\x07\x04\x38"),
        UNKNOWN,
        *GREETING,
        BIND,
        BOUND,
        CONNECT,
        BOUND,
    ]
    hop = ProxyHop(
        "socks5",
        "10.0.7.7:1080",
        "10.0.0.1:53210",
        "192.0.2.1:25",
        ProxyHop("socks5", "10.0.5.10:5000", "", "10.0.7.7:1080"),
    )

    def wrap(self, clock: Clock, server: IStreamClientEndpoint) -> IStreamClientEndpoint:
        """SOCKS5 in SOCKS5."""
        return socks5(clock, socks5(clock, server, "10.0.7.7", 1080), source="10.0.0.1")


class OverTLS:
    """A proxy that speaks TLS."""

    def server_factory(self, scripts: IProtocolFactory, clock: Clock) -> IProtocolFactory:
        """TLS below the scripts."""
        return TLSMemoryBIOFactory(server_options("proxy.example"), False, scripts, clock=clock)

    def tls(self, clock: Clock, server: IStreamClientEndpoint) -> IStreamClientEndpoint:
        """The client's side of it."""
        return wrapClientTLS(client_options("proxy.example"), server, clock=clock)


class SOCKS5OverTLSTests(OverTLS, AnsweringProxyTests, SynchronousTestCase):
    """SOCKS5 to a proxy that speaks TLS."""

    steps = SOCKS5Tests.steps
    hop = SOCKS5Tests.hop

    def wrap(self, clock: Clock, server: IStreamClientEndpoint) -> IStreamClientEndpoint:
        """SOCKS5 in TLS."""
        return socks5(clock, self.tls(clock, server))


class HAProxyTests(SilentProxyTests, HalfClosingTests, SynchronousTestCase):
    """HAProxy."""

    steps = [HEADER]
    hop = ProxyHop("haproxy", "10.0.5.10:5000", "10.0.0.2:0", "192.0.2.1:25")

    def wrap(self, clock: Clock, server: IStreamClientEndpoint) -> IStreamClientEndpoint:
        """A PROXY header."""
        return haproxy(clock, server)


class HAProxyOverTLSTests(OverTLS, SilentProxyTests, SynchronousTestCase):
    """HAProxy behind TLS."""

    steps = [HEADER]
    hop = HAProxyTests.hop

    def wrap(self, clock: Clock, server: IStreamClientEndpoint) -> IStreamClientEndpoint:
        """A PROXY header in TLS."""
        return haproxy(clock, self.tls(clock, server))


class HAProxyOverSOCKS5Tests(
    SilentProxyTests, AnsweringProxyTests, HalfClosingTests, SynchronousTestCase
):
    """HAProxy behind a SOCKS5 proxy."""

    steps = [*GREETING, Expect(b"\x05\x01\x00\x01\x0a\x00\x07\x07\x09\xde"), UNKNOWN, HEADER]
    hop = ProxyHop(
        "haproxy",
        "10.0.7.7:2526",
        "10.0.0.2:0",
        "192.0.2.1:25",
        ProxyHop("socks5", "10.0.5.10:5000", "", "10.0.7.7:2526"),
    )

    def wrap(self, clock: Clock, server: IStreamClientEndpoint) -> IStreamClientEndpoint:
        """A PROXY header in SOCKS5."""
        return haproxy(clock, socks5(clock, server, "10.0.7.7", 2526))


class SOCKS5OverHAProxyTests(AnsweringProxyTests, HalfClosingTests, SynchronousTestCase):
    """SOCKS5 behind HAProxy, which stands before the proxy and balances."""

    steps = [
        Expect(SIGNATURE + b"\x21\x11\x00\x0c\x0a\x00\x00\x02\x0a\x00\x07\x07\x00\x00\x04\x38"),
        *GREETING,
        CONNECT,
        UNKNOWN,
    ]
    hop = ProxyHop(
        "socks5",
        "10.0.7.7:1080",
        "",
        "192.0.2.1:25",
        ProxyHop("haproxy", "10.0.5.10:5000", "10.0.0.2:0", "10.0.7.7:1080"),
    )

    def wrap(self, clock: Clock, server: IStreamClientEndpoint) -> IStreamClientEndpoint:
        """SOCKS5 behind a PROXY header."""
        return socks5(clock, haproxy(clock, server, "10.0.7.7", 1080))
