"""KumoProxy against peers that send, stop and leave at the worst moments."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
from typing import Any

from twisted.trial.unittest import TestCase

from tests.integration.test_kumoproxy import SOURCE, ProxyMixin, Trial, Wire
from tests.integration.waiting import until

_CUT = struct.pack("ii", 1, 0)


def _send_in_pieces(wire: Wire, data: bytes, chance: random.Random) -> None:
    """Send data in segments of any size, with or without a pause between them."""
    while data:
        size = chance.choice((1, 3, 13, 23, 1000, 65535, 65536, 65537, len(data)))
        wire.socket.sendall(data[:size])
        data = data[size:]
        if chance.random() < 0.3:
            time.sleep(chance.choice((0.0, 0.001, 0.005)))


def _everything(wire: Wire) -> bytes:
    """Read to the end."""
    data = bytearray()
    while piece := wire.socket.recv(1 << 20):
        data += piece
    return bytes(data)


def _size(chance: random.Random) -> int:
    return chance.choice((0, 1, 24, 4096, 65536, 131072, 131073, 400000))


class HostileTimingTests(ProxyMixin, TestCase):
    """What one side says is what the other hears, whatever coincides."""

    settings: dict[str, Any] = {"timeout": 60.0, "use_splice": True}

    async def test_any_order(self) -> None:
        """Requests, replies, banners and ends that come glued, torn or at once keep their order."""
        self.start()

        def one(trial: Trial, seed: int, failures: list[str]) -> None:
            chance = random.Random(seed)
            up, down = chance.randbytes(_size(chance)), chance.randbytes(_size(chance))
            with socket.create_server(("127.0.0.1", 0)) as listener:
                listener.settimeout(60)
                port = listener.getsockname()[1]
                heard: list[bytes] = []

                def destination() -> None:
                    wire = Wire(listener.accept()[0])
                    wire.socket.settimeout(60)
                    with wire.socket:
                        reads_first = seed % 3 == 0
                        if reads_first:
                            heard.append(_everything(wire))
                        _send_in_pieces(wire, down, chance)
                        wire.socket.shutdown(socket.SHUT_WR)
                        if not reads_first:
                            heard.append(_everything(wire))

                thread = threading.Thread(target=destination)
                thread.start()
                client = Wire(socket.create_connection(("127.0.0.1", trial.port), 60))
                client.socket.settimeout(60)
                with client.socket:
                    address = socket.inet_aton(SOURCE) + b"\0\0"
                    asked = b"\x05\x01\x00" + b"\x05\x02\x00\x01" + address
                    asked += b"\x05\x01\x00\x01\x7f\0\0\x01" + struct.pack("!H", port)
                    glued = up[: chance.choice((0, 0, 1, 5000))]
                    if glued[:1] == b"\x05":  # what looks like a request there is refused
                        glued = b""
                    _send_in_pieces(client, asked + glued, chance)
                    replies = client.exactly(22)
                    writer = threading.Thread(
                        target=_send_and_shut, args=(client, up[len(glued) :], seed)
                    )
                    writer.start()
                    arrived = _everything(client)
                    writer.join()
                thread.join()
                if replies[:4] + replies[12:15] != b"\x05\x00\x05\x00\x05\x00\x00":
                    failures.append(f"{seed}: replies {replies!r}")
                if arrived != down or heard != [up]:
                    failures.append(f"{seed}: {len(arrived)} of {len(down)}, {len(up)} sent")

        def scenario(trial: Trial) -> list[str]:
            failures: list[str] = []

            def some(first: int) -> None:
                for seed in range(first, 120, 6):
                    one(trial, seed, failures)

            threads = [threading.Thread(target=some, args=(first,)) for first in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            return failures

        self.assertEqual(await self.play(scenario), [])
        counters = self.service.counters
        await until(lambda: counters.active == 0, "the sessions' ends")
        self.assertEqual((counters.completed, counters.failed), (120, 0))
        self.assertEqual(self.service.open_by_source, {})

    async def test_reset_behind_a_slow_reader(self) -> None:
        """A client that resets holds its source's place no longer than C{timeout}."""
        self.start(timeout=2.0, idle_timeout=300.0, max_connections_per_source=1)

        def scenario(trial: Trial) -> float:
            client, _destination = trial.session()
            _stuff(client)
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _CUT)
            client.socket.close()
            begun = time.monotonic()
            while self.service.counters.active and time.monotonic() < begun + 60:
                time.sleep(0.05)
            return time.monotonic() - begun

        self.assertLess(await self.play(scenario), 60)
        self.assertEqual(self.service.counters.completed, 1)
        self.assertEqual(self.service.open_by_source, {})

    async def test_reset_and_a_reader_in_time(self) -> None:
        """What a client left that resets is still delivered to who reads it in time."""
        self.start(timeout=60.0)

        def scenario(trial: Trial) -> tuple[int, int]:
            client, destination = trial.session()
            sent = _stuff(client)
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _CUT)
            client.socket.close()
            time.sleep(0.2)
            arrived = 0
            with contextlib.suppress(ConnectionResetError):
                while piece := destination.socket.recv(1 << 20):
                    arrived += len(piece)
            return sent, arrived

        sent, arrived = await self.play(scenario)
        # A reset throws away what the client's own system had not yet sent.
        self.assertGreater(arrived, 0)
        self.assertLessEqual(arrived, sent)
        await until(lambda: self.service.counters.active == 0, "the session's end")

    async def test_leaves_while_asking(self) -> None:
        """Clients that end or cut their side at any point leave nothing behind."""
        self.start()

        def scenario(trial: Trial) -> None:
            asked = b"\x05\x01\x00\x05\x01\x00\x01\x7f\0\0\x01" + struct.pack("!H", trial.target)
            stop = threading.Event()

            def take() -> None:
                trial.listener.settimeout(0.2)
                while not stop.is_set():
                    with contextlib.suppress(TimeoutError):
                        trial.listener.accept()[0].close()

            thread = threading.Thread(target=take)
            thread.start()
            for length in range(len(asked) + 1):
                for how in ("shut", "close", "cut"):
                    with socket.create_connection(("127.0.0.1", trial.port), 60) as client:
                        client.sendall(asked[:length])
                        if how == "shut":
                            client.shutdown(socket.SHUT_WR)
                            client.settimeout(60)
                            with contextlib.suppress(ConnectionResetError):
                                while client.recv(100):
                                    pass
                        elif how == "cut":
                            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _CUT)
            stop.set()
            thread.join()

        await self.play(scenario)
        counters = self.service.counters
        await until(lambda: counters.active == 0, "the sessions' ends")
        self.assertEqual(counters.completed + counters.failed, counters.accepted)
        self.assertEqual(self.service.open_by_source, {})


def _send_and_shut(wire: Wire, data: bytes, seed: int) -> None:
    _send_in_pieces(wire, data, random.Random(-seed))
    wire.socket.shutdown(socket.SHUT_WR)


def _stuff(wire: Wire) -> int:
    """Send until a second passes without room for more; return how much it was."""
    wire.socket.settimeout(1)
    sent = 0
    with contextlib.suppress(TimeoutError):
        while True:
            sent += wire.socket.send(b"x" * 65536)
    return sent
