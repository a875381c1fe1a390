"""Rates as text: ``300/m`` is 300 requests in each minute."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from django.utils.translation import gettext_lazy as _

_RATE = re.compile(r"([1-9][0-9]{0,8})/([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True, slots=True)
class Rate:
    """limit: requests in each window. seconds: its length."""

    limit: int
    seconds: int

    def __str__(self) -> str:
        letters = {seconds: letter for letter, seconds in _SECONDS.items()}
        return f"{self.limit}/{letters[self.seconds]}"

    def lies_within(self, other: Rate) -> bool:
        """Tell whether nothing that this rate lets through is too much for *other*."""
        # By whole windows: 60/m may come in one second, and is more than 1/s.
        windows = max(1, other.seconds // self.seconds)
        return self.limit * windows <= other.limit


# Asked twice for each request; few rates are in use.
@lru_cache(maxsize=256)
def parse_rate(text: str) -> Rate:
    """Return the rate of *text*, ``N/s``, ``N/m``, ``N/h`` or ``N/d``.

    Raises ValueError, with a message for people.
    """
    match = _RATE.fullmatch(text)
    if match is None:
        raise ValueError(
            _(
                "A rate is a number from 1 to 999999999, a slash and s, m, h or d: for instance "
                "300/m."
            )
        )
    return Rate(limit=int(match[1]), seconds=_SECONDS[match[2]])


def read_stored(text: object) -> Rate | None:
    """Return the rate of a stored text; None where there is none, or none that can be read."""
    try:
        return parse_rate(text if isinstance(text, str) else "")
    except ValueError:
        return None
