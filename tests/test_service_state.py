"""The state directory and the node's id."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from kumotwist.service.errors import StartError
from kumotwist.service.state import node_id, prepare_state_dir, remove_empty_dirs


class StateDirTests(SynchronousTestCase):
    """The directory."""

    def test_created(self) -> None:
        """It is made with all that leads there, not open to everybody, and may exist already."""
        path = os.path.join(self.mktemp(), "a", "b")
        for _ in range(2):
            self.assertEqual(prepare_state_dir(path), os.path.abspath(path))
        self.assertEqual(os.stat(path).st_mode & 0o007, 0)

    def test_not_a_directory(self) -> None:
        """A file in its place, or on the way to it, is told."""
        path = Path(self.mktemp())
        path.write_text("")
        failure = self.assertRaises(StartError, prepare_state_dir, str(path))
        self.assertIn("this is not a directory", str(failure))
        self.assertIn(str(path), str(failure))
        failure = self.assertRaises(StartError, prepare_state_dir, str(path / "below"))
        self.assertIn("Not a directory", str(failure))

    def test_no_permission(self) -> None:
        """A directory that this process may not write to is told before anything starts."""
        path = self.mktemp()
        os.mkdir(path)
        self.patch(os, "access", lambda *_: False)
        failure = self.assertRaises(StartError, prepare_state_dir, path)
        self.assertIn("no permission", str(failure))

    def test_impossible(self) -> None:
        """A name that the file system does not take is told."""
        self.assertRaises(StartError, prepare_state_dir, "/proc/nowhere/" + "x" * 300)


class WorkerDirTests(SynchronousTestCase):
    """The directories of workers."""

    def test_removed(self) -> None:
        """That of a worker that there is no more goes when nothing is in it, and no other."""
        state = Path(self.mktemp())
        for name in ("worker-2", "worker-3/tls-reports", "worker-4/tls-reports", "worker-5",
                     "worker-x", "spool-3"):  # fmt: skip
            (state / name).mkdir(parents=True)
        report, policies = state / "worker-4/tls-reports/1.json", state / "worker-5/mta-sts.jsonl"
        for path in (report, policies):
            path.write_text("{}")
        remove_empty_dirs(str(state), 2)
        remain = ["spool-3", "worker-2", "worker-4", "worker-5", "worker-x"]
        self.assertEqual(sorted(os.listdir(state)), remain)
        self.assertTrue(report.exists() and policies.exists())
        report.unlink()
        remove_empty_dirs(str(state), 1)
        self.assertEqual(sorted(os.listdir(state)), ["spool-3", "worker-5", "worker-x"])
        remove_empty_dirs(str(state / "none"), 1)


class NodeIdTests(SynchronousTestCase):
    """The id."""

    def setUp(self) -> None:
        """A state directory."""
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.path = self.directory / "nodeid"

    def node_id(self) -> str:
        """The id."""
        return node_id(str(self.directory))

    def refusal(self) -> str:
        """Why there is no id."""
        failure = self.assertRaises(StartError, self.node_id)
        self.assertIn(str(self.path), str(failure))
        return str(failure)

    def test_kept(self) -> None:
        """It is made once and stays."""
        first = self.node_id()
        self.assertEqual(str(uuid.UUID(first)), first)
        self.assertEqual([self.node_id(), self.node_id()], [first, first])
        self.assertEqual(os.listdir(self.directory), ["nodeid"])

    def test_own(self) -> None:
        """Two nodes have two."""
        first = self.node_id()
        self.path.unlink()
        self.assertNotEqual(self.node_id(), first)

    def test_brought_along(self) -> None:
        """An id that an operator wrote is taken, with dashes or without."""
        for text in (str(uuid.uuid4()), uuid.uuid4().hex, f"  {uuid.uuid4()}\n\n"):
            self.path.write_text(text)
            self.assertEqual(self.node_id(), text.strip())

    def test_damaged(self) -> None:
        """A damaged file is refused, not replaced: records would speak of another node."""
        for damaged in (
            b"", b"\n", b"x", b"-" * 36, b"0" * 33, b"0" * 31, b"\xff" * 32, b"\0" * 4096,
            uuid.uuid4().hex.encode() * 2, str(uuid.uuid4()).replace("-", "", 1).encode(),
        ):  # fmt: skip
            self.path.write_bytes(damaged)
            self.assertIn("not a node id", self.refusal())
            self.assertEqual(self.path.read_bytes(), damaged)

    def test_unreadable(self) -> None:
        """A file that cannot be read is told."""
        self.path.mkdir()
        self.assertIn("Is a directory", self.refusal())

    def test_cannot_be_kept(self) -> None:
        """An id that cannot be written is no id."""

        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        self.patch(os, "fsync", full)
        self.assertIn("No space left", self.refusal())
        self.assertFalse(self.path.exists())
        self.patch(os, "fsync", lambda _: None)
        self.node_id()  # what was begun does not stand in the way
