"""Text that nothing shows by accident: tracebacks, error pages and reporters print reprs."""

from __future__ import annotations

from typing import SupportsIndex


class MaskedText(str):
    """A str in every way but its repr."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"

    def __getitem__(self, item: SupportsIndex | slice) -> str:
        return MaskedText(super().__getitem__(item))


class MaskedBytes(bytes):
    """Bytes in every way but their repr."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "b'***'"


class Secret:
    """A text that only ``reveal()`` gives back.

    It is made in the very expression that reads a header, of a MaskedText, whose
    constructor has no frame of Python's: so that no frame of ours has the text in a
    local variable.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text if isinstance(text, MaskedText) else MaskedText(text)

    def __repr__(self) -> str:
        return "<Secret ***>"

    __str__ = __repr__

    def __len__(self) -> int:
        return len(self._text)

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("A Secret is not pickled, cached or stored in a session.")

    def reveal(self) -> MaskedText:
        """Return the text, as a str whose repr is masked."""
        return self._text
