"""docs/rfcs.md against the code: what the code cites is there, and what is claimed is cited."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import attrs
from twisted.trial.unittest import SynchronousTestCase

CHECKOUT = Path(__file__).resolve().parent.parent
PACKAGE = CHECKOUT / "kumotwist"
PAGE = CHECKOUT / "docs" / "rfcs.md"

_RFC = re.compile(r"RFC (\d{3,5})")
_NO_RFC = "PROXY protocol"


@attrs.define(frozen=True)
class Row:
    """A row of the page.

    @ivar rfcs: the numbers that it speaks of; empty under the heading of what is none.
    @ivar section: which sections.
    @ivar kept: C{yes}, C{partly: …} or C{no…}.
    @ivar modules: where, as files below the package.
    """

    line: str
    rfcs: tuple[str, ...]
    section: str
    kept: str
    modules: tuple[Path, ...]

    @property
    def word(self) -> str:
        """The first word of C{kept}."""
        return re.split(r"\W", self.kept)[0]


def module_path(name: str) -> Path:
    """The file of a module that is named without the package's name."""
    path = PACKAGE.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def rows() -> Iterator[Row]:
    """The rows of all tables; the heading names the RFC where a table has no column for it."""
    heading = ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            heading = line
        if not line.startswith("| ") or line.startswith(("| section |", "| RFC |")):
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        rfcs = tuple(_RFC.findall(cells.pop(0) if len(cells) == 5 else heading))
        section, _, kept, where = cells
        names = [name.strip() for name in where.split(",") if name.strip()]
        yield Row(line, rfcs, section, kept, tuple(map(module_path, names)))


def cited() -> dict[str, set[Path]]:
    """Which module cites which RFC, in a docstring or in a comment."""
    found: dict[str, set[Path]] = {}
    for path in PACKAGE.rglob("*.py"):
        # A line may end between the word and the number.
        text = re.sub(r"\s*\n\s*#?:?\s*", " ", path.read_text(encoding="utf-8"))
        for number in _RFC.findall(text):
            found.setdefault(number, set()).add(path)
    return found


class IndexTests(SynchronousTestCase):
    """The page and the code say the same."""

    def test_everything_cited_is_listed(self) -> None:
        """Every RFC that the code refers to has a row."""
        listed = {number for row in rows() for number in row.rfcs}
        self.assertEqual(sorted(set(cited()) - listed), [])

    def test_claims_are_cited(self) -> None:
        """What is kept, wholly or partly, names modules that exist and cite that RFC."""
        where = cited()
        for row in rows():
            for module in row.modules:
                self.assertTrue(module.is_file(), f"{row.line}: {module}")
                for number in row.rfcs:
                    claims = {path for path in row.modules if path in where.get(number, ())}
                    self.assertTrue(claims, f"no module of {row.line!r} cites RFC {number}")
                if row.rfcs:
                    cites = any(module in where.get(number, ()) for number in row.rfcs)
                    self.assertTrue(cites, f"{module} cites none of {row.line!r}")
            if row.word in {"yes", "partly"} and "by the next rows" not in row.kept:
                self.assertTrue(row.modules, f"nothing keeps {row.line!r}")

    def test_words(self) -> None:
        """A row says yes, partly and what is missing, or no."""
        every = list(rows())
        self.assertGreater(len(every), 100)
        for row in every:
            self.assertIn(row.word, {"yes", "partly", "no"}, row.line)
            if row.word == "partly":
                self.assertRegex(row.kept, r"\Apartly: \S.{8,}", row.line)
            self.assertTrue(row.rfcs or _NO_RFC in PAGE.read_text(encoding="utf-8"), row.line)
