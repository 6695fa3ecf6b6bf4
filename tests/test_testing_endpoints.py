"""Tests for the fakes that are shipped for tests of endpoints."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectingCancelledError, ConnectionDone, NoProtocol
from twisted.internet.interfaces import (
    IConsumer,
    IPushProducer,
    ISSLTransport,
    IStreamClientEndpoint,
    ITLSTransport,
    ITransport,
)
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kumotwist.testing.endpoints import MemoryEndpoint, RecordingEndpoint
from kumotwist.testing.scripted import Close, Expect, Hold, ScriptedServer, ScriptError, Send
from kumotwist.testing.transports import TLSFakeTransport
from tests.test_endpoints_contract import (
    Application,
    Applications,
    Echo,
    client_options,
    server_options,
)


class RecordingEndpointTests(SynchronousTestCase):
    """The endpoint that records."""

    def test_accept(self) -> None:
        """A recorded call can be let succeed."""
        endpoint, factory = RecordingEndpoint(), Applications()
        verifyObject(IStreamClientEndpoint, endpoint)
        connecting = endpoint.connect(factory)
        self.assertNoResult(connecting)
        protocol = endpoint.connects[0].accept()
        self.assertIs(self.successResultOf(connecting), protocol)
        self.assertEqual(factory.built[0].events, ["made"])
        self.assertEqual(factory.numPorts, 1)

    def test_refuse(self) -> None:
        """A recorded call can be let fail, or be cancelled."""
        endpoint, factory = RecordingEndpoint(), Applications()
        first, second = endpoint.connect(factory), endpoint.connect(factory)
        endpoint.connects[0].refuse(RuntimeError())
        self.failureResultOf(first, RuntimeError)
        second.cancel()
        self.failureResultOf(second, ConnectingCancelledError)
        self.assertEqual([call.cancelled for call in endpoint.connects], [False, True])
        self.assertEqual(factory.numPorts, 0)

    def test_no_protocol(self) -> None:
        """A factory that builds nothing fails the call."""
        endpoint = RecordingEndpoint()
        connecting = endpoint.connect(Applications(answer=False))
        self.assertIsNone(endpoint.connects[0].accept())
        self.failureResultOf(connecting, NoProtocol)


class ScriptedServerTests(SynchronousTestCase):
    """The server that follows a script."""

    def serve(self, *steps: Any, then: Any = None) -> tuple[ScriptedServer, StringTransport]:
        """A server with a script, connected."""
        server, transport = ScriptedServer(steps, then), StringTransport()
        server.makeConnection(transport)
        return server, transport

    def test_script(self) -> None:
        """Steps are played in order, however the octets are cut."""
        server, transport = self.serve(Send(b"a"), Expect(b"bc"), Hold(), Send(b"d"), Close())
        self.assertEqual(transport.value(), b"a")
        server.dataReceived(b"b")
        self.assertRaises(ScriptError, server.release)
        server.dataReceived(b"c")
        self.assertEqual(transport.value(), b"a")
        self.assertRaises(ScriptError, server.assert_finished)
        server.release()
        self.assertEqual(transport.value(), b"ad")
        self.assertTrue(transport.disconnecting)
        server.assert_finished()

    def test_wrong(self) -> None:
        """Anything else than is expected is an error, at the first octet that differs."""
        server, _ = self.serve(Expect(b"abc"))
        self.assertRaises(ScriptError, server.dataReceived, b"ax")
        self.assertRaises(ScriptError, server.assert_finished)

    def test_ahead(self) -> None:
        """Sending ahead of a reply is an error."""
        server, _ = self.serve(Expect(b"a"), Send(b"b"), Expect(b"c"))
        self.assertRaises(ScriptError, server.dataReceived, b"ac")

    def test_stream(self) -> None:
        """What follows the script is kept, or goes to another protocol."""
        server, _ = self.serve(Expect(b"a"))
        server.dataReceived(b"abc")
        server.dataReceived(b"d")
        self.assertEqual(server.stream, b"bcd")
        application = Application()
        server, _ = self.serve(Expect(b"a"), then=application)
        server.dataReceived(b"abc")
        server.dataReceived(b"d")
        server.connectionLost()
        self.assertEqual(application.events[:2], ["made", b"bcd"])
        self.assertEqual(len(application.events), 3)


class MemoryEndpointTests(SynchronousTestCase):
    """The endpoint that connects in memory."""

    def connect(self) -> tuple[Any, Any]:
        """A connection to a server that echoes; the connection and the application."""
        clock = Clock()
        endpoint = MemoryEndpoint(clock, Factory.forProtocol(Echo))
        verifyObject(IStreamClientEndpoint, endpoint)
        application = self.successResultOf(endpoint.connect(Applications()))
        return endpoint.connections[0], application

    def test_interfaces(self) -> None:
        """Its transports are what they claim to be."""
        connection, _ = self.connect()
        for interface in (ITransport, ITLSTransport, IConsumer, IPushProducer):
            verifyObject(interface, connection.client_transport)

    def test_stream(self) -> None:
        """Octets go there and back; closing is told to both."""
        connection, application = self.connect()
        application.transport.write(b"hello")
        connection.flush()
        application.transport.loseConnection()
        connection.flush()
        self.assertEqual(application.events[:2], ["made", b"hello"])
        self.assertIsInstance(application.events[2], ConnectionDone)

    def test_abort(self) -> None:
        """Aborting forgets what was not sent, and nothing arrives after it."""
        connection, application = self.connect()
        connection.server_transport.write(b"too late")
        application.transport.write(b"hello")
        application.transport.abortConnection()
        connection.flush()
        self.assertEqual(len(application.events), 2)
        self.assertTrue(connection.server_transport.disconnected)

    def test_back_pressure(self) -> None:
        """Nothing is delivered to a protocol that does not want to read."""
        connection, application = self.connect()
        application.transport.pauseProducing()
        application.transport.write(b"hello")
        connection.flush()
        self.assertEqual(application.events, ["made"])
        application.transport.resumeProducing()
        self.assertEqual(application.events, ["made", b"hello"])

    def test_tls(self) -> None:
        """TLS is real: the octets on the way are not those that were written."""
        connection, application = self.connect()
        connection.server_transport.startTLS(server_options("mx.example.com"))
        application.transport.startTLS(client_options("mx.example.com"))
        seen: list[bytes] = []
        below = connection.server_transport
        deliver = below.bufferReceived

        def watch(data: bytes) -> None:
            seen.append(data)
            deliver(data)

        below.bufferReceived = watch
        application.transport.write(b"hello")
        connection.flush()
        self.assertEqual(application.events, ["made", "handshake", b"hello"])
        self.assertTrue(ISSLTransport.providedBy(application.transport))
        self.assertNotIn(b"hello", b"".join(seen))
        self.assertIsNotNone(application.transport.getPeerCertificate())
        application.transport.loseConnection()
        connection.flush()
        self.assertIsInstance(application.events[-1], ConnectionDone)

    def test_tls_with_somebody_else(self) -> None:
        """A certificate for another name is refused."""
        connection, application = self.connect()
        connection.server_transport.startTLS(server_options("evil.example"))
        application.transport.startTLS(client_options("mx.example.com"))
        connection.flush()
        self.assertNotIn("handshake", application.events)
        self.assertNotIsInstance(application.events[-1], (str, ConnectionDone))

    def test_no_protocol(self) -> None:
        """A factory that builds nothing makes no connection."""
        endpoint = MemoryEndpoint(Clock(), Factory.forProtocol(Echo))
        self.failureResultOf(endpoint.connect(Applications(answer=False)), NoProtocol)
        self.assertEqual(endpoint.connections, [])

    def test_reactor(self) -> None:
        """The transport names its clock as a socket's transport names its reactor."""
        clock = Clock()
        self.assertIs(TLSFakeTransport(Application(), False, clock=clock).reactor, clock)
