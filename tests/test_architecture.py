"""The house stands as docs/architecture.md draws it: who imports whom, and what nobody does."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import attrs
from twisted.trial.unittest import SynchronousTestCase

CHECKOUT = Path(__file__).resolve().parent.parent
PACKAGE = CHECKOUT / "kumotwist"

LEAVES = frozenset({"errors", "interfaces", "settings"})
EVERYTHING = frozenset({"service", "tap"})
"""The rooms that may know all others."""


@attrs.define(frozen=True)
class Import:
    """One import statement.

    @ivar path: the file that has it.
    @ivar line: its line.
    @ivar name: the module's absolute name; for C{from a import b} it is C{a.b}.
    @ivar at_module_level: whether it runs when the module is imported.
    @ivar for_types_only: whether it stands under C{if TYPE_CHECKING}.
    """

    path: Path
    line: int
    name: str
    at_module_level: bool
    for_types_only: bool

    def __str__(self) -> str:
        return f"{self.path.relative_to(CHECKOUT)}:{self.line} imports {self.name}"


def modules() -> list[Path]:
    """The files of the package."""
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    """The room that a file belongs to."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0].removesuffix(".py")


def is_type_checking(node: ast.AST) -> bool:
    """Whether a node is C{if TYPE_CHECKING}."""
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def walk(
    node: ast.AST, at_module_level: bool = True, for_types_only: bool = False
) -> Iterator[tuple[ast.AST, bool, bool]]:
    """Every node below, with whether it runs at import and whether it is for types only."""
    for child in ast.iter_child_nodes(node):
        inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        types = for_types_only or is_type_checking(child)
        yield child, at_module_level, for_types_only
        yield from walk(child, at_module_level and not inside, types)


def imports_of(path: Path) -> list[Import]:
    """The imports of a file."""
    package = ["kumotwist", *path.relative_to(PACKAGE).parent.parts]
    found = []
    for node, top, types in walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            prefix = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{prefix}.{alias.name}" for alias in node.names]
        found += [Import(path, getattr(node, "lineno", 0), name, top, types) for name in names]
    return found


def table() -> dict[str, frozenset[str]]:
    """The table of rooms in docs/architecture.md: what each room may import.

    C{all} stands for every room, C{the rooms' settings} and C{leaves} for what they say.
    """
    text = (CHECKOUT / "docs" / "architecture.md").read_text(encoding="utf-8")
    allowed: dict[str, frozenset[str]] = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        rooms = re.findall(r"`kumotwist\.(\w+)`", cells[0])
        if len(cells) != 3 or not rooms:
            continue
        words = frozenset(re.findall(r"\b\w+\b", cells[2]))
        for room in rooms:
            allowed[room] = words
    return allowed


class TableTests(SynchronousTestCase):
    """The table can be read, and names every room."""

    def test_every_room_is_in_the_table(self) -> None:
        """A package or module that the table does not name has no place in the house."""
        rooms = {room_of(path) for path in modules()} - {"__init__"}
        self.assertEqual(rooms - set(table()), set())

    def test_the_table_is_read(self) -> None:
        """What it says of a few rooms is what we take it to say."""
        rooms = table()
        self.assertIn("wire", rooms["endpoints"])
        self.assertNotIn("queue", rooms["wire"])
        self.assertTrue(set(rooms) >= LEAVES | EVERYTHING, sorted(rooms))

    def test_no_arrow_points_back(self) -> None:
        """The rooms can be put in an order in which each knows only earlier ones."""
        rooms = table()
        left = {room: words & set(rooms) - {room} for room, words in rooms.items()}
        while ready := {room for room, known in left.items() if not known & set(left)}:
            left = {room: known for room, known in left.items() if room not in ready}
        self.assertEqual(left, {})


class ImportTests(SynchronousTestCase):
    """Arrows point down the table and never back."""

    def allowed(
        self, room: str, imported: str, name: str, rooms: dict[str, frozenset[str]]
    ) -> bool:
        """Whether a room may import a module of another."""
        if imported in {room, "__version__"} or room in EVERYTHING:
            return True
        if imported in LEAVES:
            return room not in LEAVES or imported in {"errors", "settings"}
        words = rooms[room]
        if imported in words or "all" in words:
            return True
        return "settings" in words and name.split(".")[2:3] == ["settings"]

    def test_rooms_import_what_the_table_allows(self) -> None:
        """No room knows one that the table does not give it; annotations alone may name more."""
        rooms = table()
        wrong = []
        for path in modules():
            room = room_of(path)
            if room == "__init__":
                continue
            for found in imports_of(path):
                parts = found.name.split(".")
                if parts[0] != "kumotwist" or found.for_types_only or len(parts) < 2:
                    continue
                if not self.allowed(room, parts[1], found.name, rooms):
                    wrong.append(str(found))
        self.assertEqual(wrong, [], "\n".join(wrong))

    def test_wire_does_no_io(self) -> None:
        """The machines know neither Twisted nor sockets nor clocks."""
        forbidden = {"twisted", "socket", "asyncio", "select", "time", "threading", "ssl"}
        wrong = [
            str(found)
            for path in modules()
            if room_of(path) == "wire"
            for found in imports_of(path)
            if found.name.split(".")[0] in forbidden and not found.for_types_only
        ]
        self.assertEqual(wrong, [], "\n".join(wrong))

    def test_nobody_imports_the_reactor(self) -> None:
        """The reactor is passed in; only the twistd plugin's makeService may reach for it."""
        wrong = [
            str(found)
            for path in modules()
            for found in imports_of(path)
            if found.name.startswith("twisted.internet.reactor")
            and (found.at_module_level or room_of(path) not in {"tap", "cli"})
            and not found.for_types_only
        ]
        self.assertEqual(wrong, [], "\n".join(wrong))

    def test_only_config_reads_ini_files(self) -> None:
        """Everybody else gets frozen values."""
        wrong = [
            str(found)
            for path in modules()
            if room_of(path) != "config"
            for found in imports_of(path)
            if found.name.split(".")[0] == "configparser"
        ]
        self.assertEqual(wrong, [], "\n".join(wrong))


class HabitTests(SynchronousTestCase):
    """What nobody in the package does."""

    def test_nobody_sleeps(self) -> None:
        """The reactor's thread never sleeps, and no other does."""
        wrong = [
            f"{path.relative_to(CHECKOUT)}:{node.lineno}"
            for path in modules()
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {"time.sleep", "sleep"}
        ]
        self.assertEqual(wrong, [])

    def test_modules_are_short(self) -> None:
        """A module has under 500 lines, for it has one reason to exist."""
        lengths = {
            str(path.relative_to(CHECKOUT)): len(path.read_text(encoding="utf-8").splitlines())
            for path in modules()
        }
        self.assertEqual({name: n for name, n in lengths.items() if n >= 500}, {})

    def test_class_names_say_something(self) -> None:
        """No class is called Manager, Handler, Engine, Processor or Util."""
        empty = re.compile(r"(Manager|Handler|Engine|Processor|Utils?)$")
        wrong = [
            f"{path.relative_to(CHECKOUT)}:{node.lineno} {node.name}"
            for path in modules()
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.ClassDef) and empty.search(node.name)
        ]
        self.assertEqual(wrong, [])

    def test_every_module_has_a_docstring(self) -> None:
        """Each module says what it is for."""
        wrong = [
            str(path.relative_to(CHECKOUT))
            for path in modules()
            if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        ]
        self.assertEqual(wrong, [])

    def test_twisted_stays_a_namespace(self) -> None:
        """An __init__.py in twisted/ or twisted/plugins/ would hide Twisted or our plugins."""
        self.assertEqual(list((CHECKOUT / "twisted").rglob("__init__.py")), [])
