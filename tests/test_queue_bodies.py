"""How many bodies stay in memory."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.message.queued import QueuedMessage, new_id
from kumotwist.queue.bodies import Bodies
from kumotwist.spool import DamagedBodyError
from kumotwist.testing.spool import MemorySpool

BODY = b"x" * 100


class BodiesTests(SynchronousTestCase):
    """The room for bodies and who takes it."""

    def setUp(self) -> None:
        """A spool and a little room."""
        self.spool = MemorySpool()
        self.spool.open()
        self.bodies = Bodies(self.spool, limit=250)

    def messages(self, count: int = 1, body: bytes = BODY) -> list[QueuedMessage]:
        """Stored messages that share a body, which they carry."""
        messages = [
            QueuedMessage(
                id=new_id(0.0), sender="a@b.example", recipient="c@b.example", queue="b.example",
                size=len(body), created=0.0, due=0.0,
            )
            for _ in range(count)
        ]  # fmt: skip
        self.spool.store(body, messages)
        for message in messages:
            message.body = body
        return messages

    def test_kept(self) -> None:
        """A body that there is room for stays, and is given without asking the spool."""
        (message,) = self.messages()
        self.bodies.keep(message)
        self.spool.close()
        self.assertEqual(self.successResultOf(self.bodies.load(message)), BODY)
        self.assertEqual(self.bodies.bytes, 100)

    def test_no_room(self) -> None:
        """A body beyond the limit is dropped, and comes from the spool."""
        kept, dropped = self.messages()[0], self.messages(body=b"y" * 200)[0]
        self.bodies.keep(kept)
        self.bodies.keep(dropped)
        self.assertIsNone(dropped.body)
        self.assertEqual(self.bodies.bytes, 100)
        self.assertEqual(self.successResultOf(self.bodies.load(dropped)), b"y" * 200)

    def test_shared(self) -> None:
        """Messages that share a body take its room once, until the last one lets it go."""
        messages = self.messages(5)
        for message in messages:
            self.bodies.keep(message)
        self.assertEqual(self.bodies.bytes, 100)
        for message in messages[:-1]:
            self.bodies.drop(message)
        self.assertEqual(self.bodies.bytes, 100)
        self.bodies.drop(messages[-1])
        self.assertEqual(self.bodies.bytes, 0)

    def test_twice(self) -> None:
        """Keeping or dropping twice is the same as once."""
        one, two = self.messages(2)
        for message in (one, one, two):
            self.bodies.keep(message)
        self.bodies.drop(one)
        self.bodies.drop(one)
        self.assertEqual(self.bodies.bytes, 100)
        self.bodies.drop(two)
        self.assertEqual(self.bodies.bytes, 0)

    def test_loaded_by_an_attempt(self) -> None:
        """An attempt's own copy of a body gives no room free when it goes."""
        one, two = self.messages(2)
        self.bodies.keep(one)
        two.body = BODY  # as a session does it, after load
        self.bodies.drop(two)
        self.assertIsNone(two.body)
        self.assertEqual(self.bodies.bytes, 100)

    def test_let_go_by_others(self) -> None:
        """A message whose body was taken from it is forgotten all the same when it goes."""
        (message,) = self.messages()
        self.bodies.keep(message)
        message.body = None
        self.bodies.drop(message)
        self.assertEqual(self.bodies.bytes, 0)

    def test_nothing_to_keep(self) -> None:
        """A message without a body takes no room."""
        (message,) = self.messages()
        message.body = None
        self.bodies.keep(message)
        self.assertEqual(self.bodies.bytes, 0)

    def test_damaged(self) -> None:
        """A body that the spool cannot give is an error of the spool's."""
        (message,) = self.messages()
        message.body = None
        self.spool.bodies.clear()
        self.failureResultOf(self.bodies.load(message), DamagedBodyError)

    @settings(max_examples=50)
    @given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["keep", "drop", "load"]))))
    def test_the_count_is_right(self, steps: list[tuple[int, str]]) -> None:
        """Whatever happens, the count is what is kept, and nothing is left in the end."""
        self.setUp()
        messages = [*self.messages(3), *self.messages(2), *self.messages(1)]
        for index, step in steps:
            message = messages[index]
            if step == "load":
                message.body = message.body or BODY
            elif step == "keep":
                self.bodies.keep(message)
            else:
                self.bodies.drop(message)
            self.assertIn(self.bodies.bytes, (0, 100, 200))
        for message in messages:
            self.bodies.drop(message)
        self.assertEqual(self.bodies.bytes, 0)
