"""What a terminal can show: lines of text, bars that grow, bars that stand."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.core.management.base import OutputWrapper

_EIGHTHS = " ▏▎▍▌▋▊▉"
_CLEAR = "\r\x1b[K"


class OutputFailed(Exception):
    """What was to be printed could not be: its ``__cause__`` is the OSError."""


@contextmanager
def output_written() -> Iterator[None]:
    """Raise OutputFailed for the OSError of a stream: others are errors of something else."""
    try:
        yield
    except OSError as error:
        raise OutputFailed(error.strerror) from error


def drop(stream: OutputWrapper) -> None:
    """Let what *stream* still holds go nowhere: at its end Python would try, and fail, again."""
    with suppress(OSError):  # it is no file
        number = stream.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)


def printable(text: str) -> str:
    """Return *text* with control characters, and others that show nothing, written out."""
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text
    )


def bar(value: int, of: int, width: int, *, plain: bool = False) -> str:
    """Return a bar as long in relation to *width* as *value* is to *of*.

    To an eighth of a character; plain: whole ``#`` alone. What is more than nothing is seen.
    """
    eighths = width * 8 * value // of if of else 0
    if value:
        eighths = max(eighths, 8 if plain else 1)
    whole, part = divmod(eighths, 8)
    return "#" * whole if plain else ("█" * whole + _EIGHTHS[part]).rstrip()


def is_plain(stream: OutputWrapper) -> bool:
    """Tell whether *stream* cannot show the blocks that bars are made of."""
    # A stream that is no file says None, and takes every character.
    encoding: str | None = stream.encoding
    try:
        "█▏".encode(encoding or "utf-8")
    except UnicodeEncodeError:
        return True
    return False


class Progress:
    """A line that says how far something is; ``is_shown``: whether *stream* is a terminal."""

    width = 30

    def __init__(self, stream: OutputWrapper) -> None:
        self._stream = stream
        self.is_shown = stream.isatty()
        self._plain = is_plain(stream)

    def show(self, name: str, done: int, to_do: int) -> None:
        """Show that *done* of *to_do* are done, in place of what was shown before."""
        # More may have come since they were counted.
        to_do = max(done, to_do)
        filled = bar(done, to_do, self.width, plain=self._plain).ljust(self.width)
        self._write(f"{_CLEAR}{name:10} |{filled}| {done:,} / {to_do:,}")

    def end(self) -> None:
        """Take the line away."""
        self._write(_CLEAR)

    def _write(self, text: str) -> None:
        # Not in the red of an error.
        self._stream.write(text, lambda plain: plain, ending="")
        self._stream.flush()
