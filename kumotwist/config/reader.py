"""INI text into sections and keys that know their lines.

The syntax is L{configparser}'s, with C{=} as the only delimiter, comments on lines of their own
and no interpolation; the tests hold the two against each other. The standard parser itself stops
at the first defect and forgets where things stood, and here every defect is to be reported.
"""

from __future__ import annotations

import re

import attrs

from kumotwist.config.errors import ConfigError

__all__ = ["Entry", "IniFile", "RawSection", "read", "scan"]


@attrs.define(frozen=True)
class Entry:
    """A key and its value, with the line of the key."""

    key: str
    value: str
    line: int


@attrs.define
class RawSection:
    """A section as it stands in a file.

    @ivar header: what stands between the brackets; empty if they could not be made out.
    """

    file: str
    line: int
    header: str
    entries: list[Entry] = attrs.field(factory=list)


@attrs.define(frozen=True)
class IniFile:
    """What was read from a file, and what could not be.

    @ivar text: all of it.
    """

    sections: tuple[RawSection, ...]
    errors: tuple[ConfigError, ...]
    text: str = ""


def read(path: str) -> IniFile:
    """Read a file; what is wrong with it is in C{errors} of the result."""
    try:
        with open(path, "rb") as stream:
            data = stream.read()
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = error.object.count(b"\n", 0, error.start) + 1
        byte = error.object[error.start]
        problem = f"byte 0x{byte:02x} is not UTF-8 (a file in UTF-8)"
        return IniFile((), (ConfigError(path, number, "", "", problem),))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        return IniFile((), (ConfigError(path, 1, "", "", f"cannot be read: {reason}"),))
    return scan(path, text)


def scan(path: str, text: str) -> IniFile:
    """Take a text for that of a file."""
    lines = _Scan(path)
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), 1):
        lines.line(number, line)
    lines.finish_value()
    return IniFile(tuple(lines.sections), tuple(lines.errors), text)


class _Scan:
    """Goes through the lines of one file."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.sections: list[RawSection] = []
        self.errors: list[ConfigError] = []
        self._indent = 0
        self._key: tuple[str, int] | None = None
        self._value: list[str] | None = None
        self._told_of_no_section = False

    def line(self, number: int, line: str) -> None:
        """Take the next line."""
        text = line.strip()
        if not text:
            if self._value is not None:
                self._value.append("")
            return
        if text[0] in "#;":
            return
        indent = len(line) - len(line.lstrip())
        if self._value is not None and indent > self._indent:
            self._value.append(text)
            return
        self.finish_value()
        self._indent = indent
        if text[0] == "[":
            self._header(number, text)
        else:
            self._entry(number, text)

    def finish_value(self) -> None:
        """The value that was being read ends here."""
        if self._key is not None and self._value is not None:
            key, line = self._key
            self.sections[-1].entries.append(Entry(key, "\n".join(self._value).rstrip(), line))
        self._key = self._value = None

    def _header(self, number: int, text: str) -> None:
        header = text[1:].rpartition("]")[0].strip()
        # The empty header makes a section of which nothing is known and nothing is said.
        self.sections.append(RawSection(self.file, number, header))
        if not text.endswith("]") or not header:
            problem = f"{text!r} is not a section header ([NAME] and nothing after it)"
            self.errors.append(ConfigError(self.file, number, "", "", problem))

    def _entry(self, number: int, text: str) -> None:
        key, equals, value = text.partition("=")
        key = key.rstrip()
        # Lines that continue a wrong line are part of it.
        self._value = [value.strip()]
        if not self.sections:
            if not self._told_of_no_section:
                self._told_of_no_section = True
                problem = "there is no section above this line (such as [kumo])"
                self.errors.append(ConfigError(self.file, number, "", "", problem))
        elif not equals or not key:
            problem = "the line is neither [SECTION] nor KEY = VALUE"
            header = self.sections[-1].header
            self.errors.append(ConfigError(self.file, number, header, "", problem))
        else:
            self._key = (key, number)
