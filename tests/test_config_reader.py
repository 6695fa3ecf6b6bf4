"""INI files are read as configparser reads them, with lines and without stopping."""

from __future__ import annotations

import re
from configparser import ConfigParser
from configparser import Error as ConfigParserError
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.config.reader import IniFile, read

_LINE = st.one_of(
    st.just(""),
    st.sampled_from(["# c", "; c", "  # c", "\t"]),
    st.builds("{}[{}]".format, st.sampled_from(["", " "]), st.sampled_from(["a", "b:c", "d] e"])),
    st.builds(
        "{}{}={}{}".format,
        st.sampled_from(["", "  ", "    "]),
        st.sampled_from(["k", "K ", "other key "]),
        st.sampled_from(["", " "]),
        st.sampled_from(["", "v", "100%", "a=b", "[x]:25", "# no comment", "a ; b", r"tcp\:1"]),
    ),
    st.sampled_from(["  more", "    and more", "  [127.0.0.1]:25", "\tx = y", "[10.0.0.1]"]),
)


class OracleTests(SynchronousTestCase):
    """The standard parser as the judge."""

    def read(self, data: bytes) -> IniFile:
        """Read octets as a file."""
        path = Path(self.mktemp())
        path.write_bytes(data)
        return read(str(path))

    @settings(max_examples=200, deadline=None)
    @given(st.lists(_LINE, max_size=14), st.sampled_from(["\n", "\r\n"]))
    def test_same_values(self, lines: list[str], newline: str) -> None:
        """What both accept has the same sections, keys and values."""
        oracle = ConfigParser(
            interpolation=None,
            delimiters=("=",),
            strict=False,
            inline_comment_prefixes=None,
            default_section="",
        )
        try:
            oracle.read_string("\n".join(lines))
        except ConfigParserError:
            self.assertTrue(self.read(newline.join(lines).encode()).errors)
            return
        ini = self.read(newline.join(lines).encode())
        if any("is not a section header" in error.problem for error in ini.errors):
            # The one place where we are stricter: configparser ignores what follows the bracket.
            self.assertTrue(any(re.match(r"\s*\[.*\]\S", line) for line in lines))
            return
        self.assertEqual(ini.errors, ())
        mine: dict[str, dict[str, str]] = {}
        for section in ini.sections:
            keys = mine.setdefault(section.header, {})
            keys.update({entry.key.lower(): entry.value for entry in section.entries})
        self.assertEqual(mine, {name: dict(oracle[name]) for name in oracle.sections()})

    @settings(max_examples=100, deadline=None)
    @given(st.binary(max_size=60))
    def test_any_octets(self, data: bytes) -> None:
        """Whatever a file holds, reading it ends, and errors have lines of the file."""
        ini = self.read(data)
        for error in ini.errors:
            self.assertTrue(1 <= error.line <= len(data) + 1)

    def test_lines(self) -> None:
        """Sections and keys know their lines, also after values of several lines."""
        ini = self.read(b"\xef\xbb\xbf# c\n[a]\nk = 1\n  2\n\n  3\n\nl = 4\n[b]\n")
        self.assertEqual([(one.header, one.line) for one in ini.sections], [("a", 2), ("b", 9)])
        self.assertEqual(
            [(entry.key, entry.value, entry.line) for entry in ini.sections[0].entries],
            [("k", "1\n2\n\n3", 3), ("l", "4", 8)],
        )
