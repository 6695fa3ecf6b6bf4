"""Ids of messages and sessions."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from kumotwist.message.queued import new_id


class IdTests(SynchronousTestCase):
    """RFC 9562's version 7."""

    def test_layout(self) -> None:
        """An id begins with its moment and says its version and variant."""
        for _ in range(200):
            made = new_id(1751365957.25)
            self.assertRegex(made, "^[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}$")
            self.assertEqual(int(made[:12], 16), 1751365957250)

    def test_unique(self) -> None:
        """Ids of the same moment differ."""
        self.assertEqual(len({new_id(1.0) for _ in range(1000)}), 1000)

    def test_forked(self) -> None:
        """A process that is forked does not make the ids that its parent makes."""
        new_id(1.0)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writing, new_id(1.0).encode())
            os._exit(0)
        os.waitpid(child, 0)
        of_child = os.read(reading, 32).decode()
        os.close(reading)
        os.close(writing)
        self.assertNotEqual(of_child, new_id(1.0))
