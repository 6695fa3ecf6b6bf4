"""Booleans, texts, choices, secrets and files."""

from __future__ import annotations

import os

from kumotwist.settings.kind import SettingType

__all__ = [
    "BOOLEAN",
    "READABLE_FILE",
    "SECRET",
    "TEXT",
    "Secret",
    "choice",
]


def _parse_boolean(text: str) -> bool:
    word = text.strip().lower()
    if word in {"1", "yes", "true", "on"}:
        return True
    if word in {"0", "no", "false", "off"}:
        return False
    raise ValueError(f"{text!r} is neither yes nor no")


BOOLEAN: SettingType[bool] = SettingType(
    "boolean", _parse_boolean, lambda value: "yes" if value else "no"
)


def _parse_text(text: str) -> str:
    value = text.strip()
    if not value:
        raise ValueError("the value is empty")
    if "\n" in value:
        raise ValueError("the value has several lines (an indented line continues the one above)")
    if not value.isprintable():
        raise ValueError(f"{value!r} has characters that cannot be shown (control characters)")
    return value


TEXT: SettingType[str] = SettingType("text", _parse_text)


def choice(*words: str) -> SettingType[str]:
    """One of several words, whatever its case; the value is spelled as here."""
    by_folded = {word.lower(): word for word in words}

    def parse(text: str) -> str:
        try:
            return by_folded[text.strip().lower()]
        except KeyError:
            raise ValueError(f"{text!r} is none of {', '.join(words)}") from None

    return SettingType(f"one of {', '.join(f'`{word}`' for word in words)}", parse)


class Secret(str):
    """A secret that does not show itself in a C{repr}, so not in a traceback or a log either.

    @ivar reference: C{file:PATH} or C{env:NAME} if it was given so, else L{None}. Where a secret
        is kept is not itself secret.
    """

    reference: str | None

    def __new__(cls, value: str, reference: str | None = None) -> Secret:
        """Wrap a secret."""
        self = super().__new__(cls, value)
        self.reference = reference
        return self

    def __repr__(self) -> str:
        return f"<secret {self.reference or '********'}>"


def _parse_secret(text: str) -> Secret:
    """Read a secret: literally, from C{file:PATH} or from C{env:NAME}.

    The messages never contain the secret.
    """
    value = text.strip()
    reference = None
    if value.startswith("file:"):
        reference = value
        path = value.removeprefix("file:")
        try:
            with open(path, encoding="utf-8") as stream:
                value = stream.read().rstrip("\r\n")
        except OSError as error:
            raise ValueError(f"cannot read the secret from {path!r}: {error.strerror}") from None
        except ValueError:
            raise ValueError(f"the secret in {path!r} is not UTF-8 text") from None
    elif value.startswith("env:"):
        reference = value
        name = value.removeprefix("env:")
        if name not in os.environ:
            raise ValueError(f"the environment has no variable {name!r}")
        value = os.environ[name]
    if not value:
        raise ValueError("the secret is empty")
    if reference is None and "\n" in value:
        raise ValueError("the secret has several lines (one line, or file:PATH)")
    return Secret(value, reference)


def _render_secret(value: str) -> str:
    return getattr(value, "reference", None) or "********"


def _reveal_secret(value: str) -> str:
    return getattr(value, "reference", None) or str(value)


SECRET: SettingType[str] = SettingType(
    "secret", _parse_secret, _render_secret, secret=True, reveal=_reveal_secret
)


def _parse_readable_file(text: str) -> str:
    path = _parse_text(text)
    try:
        with open(path, "rb") as stream:
            stream.read(1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"cannot read {path!r}: {reason}") from None
    return path


READABLE_FILE: SettingType[str] = SettingType("file", _parse_readable_file)
