"""How long the client waits for what: docs/sending.md against the settings."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.smtp.timeouts import Timeouts
from kumotwist.wire.smtp.phases import Phase

PAGE = Path(__file__).resolve().parent.parent / "docs" / "sending.md"


class TableTests(SynchronousTestCase):
    """The table in the documentation."""

    def rows(self) -> dict[str, tuple[bool, list[float | None]]]:
        """By key: whether it is bold, and the numbers behind it."""
        rows = {}
        for line in PAGE.read_text(encoding="utf-8").splitlines():
            match = re.fullmatch(r"\| (\*\*)?`(\w+_timeout)`(?:\*\*)? \|(.*)\|", line)
            if match is not None:
                cells = [cell.strip() for cell in match.group(3).split("|")]
                numbers = [float(cell) if cell else None for cell in cells]
                rows[match.group(2)] = match.group(1) is not None, numbers
        return rows

    def test_every_timeout(self) -> None:
        """Each timeout is in the table with its default, and nothing else is."""
        defaults = attrs.asdict(Timeouts())
        self.assertEqual({key: row[1][0] for key, row in self.rows().items()}, defaults)

    def test_values(self) -> None:
        """KumoMTA's value stands where it has one; where it has two, the RFC's decides."""
        bold = [key for key, (marked, _) in self.rows().items() if marked]
        self.assertEqual(len(bold), 4)
        for key, (marked, (ours, code, documented, standard)) in self.rows().items():
            if marked:
                self.assertNotEqual(code, documented, key)
                self.assertEqual(ours, documented if standard is None else standard, key)
            elif code is not None:
                self.assertEqual(ours, code, key)
                self.assertIn(documented, (code, None), key)

    def test_every_phase(self) -> None:
        """There is a patience for every phase of a session."""
        for phase in Phase:
            self.assertGreater(Timeouts().of[phase], 0)
