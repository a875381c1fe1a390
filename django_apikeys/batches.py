"""What is counted: one answered request, and the counters that requests are added up in."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import UTC
from typing import TYPE_CHECKING, Any, Literal

from django_apikeys.quotas import month_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date, datetime

    from django_apikeys.flushing import News

Outcome = Literal["2xx", "3xx", "4xx", "5xx", "refused", "limited"]
GOOD = ("2xx", "3xx")
NOT_LET_THROUGH = ("refused", "limited")
OTHER = "other"
# Distinct rows of usage and of addresses in one batch; what comes after them is "other".
MOST_ROWS = 50_000


@dataclass(slots=True)
class Hit:
    """One answered request of a verified key.

    owner_id: as text; empty for a key of the project. route: the URL pattern. address:
    empty where none is stored. month, units: what it cost of the owner's quota; None and
    0 where there is none. quota: the limit of that. totalled: the limiter has counted all but
    how it was answered. in_grace: another secret has taken the place of this one.
    """

    key_id: uuid.UUID
    secret_id: int
    owner_id: str
    at: datetime
    route: str
    method: str
    outcome: Outcome
    address: str = ""
    month: date | None = None
    units: int = 0
    quota: int | None = None
    totalled: bool = False
    in_grace: bool = False


@dataclass(slots=True)
class Seen:
    """Requests, the first and the last of them, and where the last came from.

    marked: those that failed; of a secret those in its grace.
    """

    at: datetime
    address: str
    requests: int = 0
    marked: int = 0
    first_at: datetime | None = None

    def add(self, at: datetime, address: str, mark: bool) -> None:  # noqa: FBT001 - the hot path
        self.requests += 1
        self.marked += mark
        # In any order: a request counts when it is answered, and some take long.
        if at >= self.at:
            self.at, self.address = at, address
        elif self.first_at is None or at < self.first_at:
            self.first_at = at


@dataclass(slots=True)
class Spent:
    """What is added to an owner's month.

    requests: those that were let through. units: what the quota is charged. quota: the
    limit that they are counted against; None where none is charged.
    """

    requests: int = 0
    units: int = 0
    quota: int | None = None


@dataclass(slots=True)
class Batch:
    """Counters that are added up, under the id that they will be applied with."""

    id: uuid.UUID = field(default_factory=uuid.uuid4)
    keys: dict[uuid.UUID, Seen] = field(default_factory=dict)
    secrets: dict[int, Seen] = field(default_factory=dict)
    usage: dict[tuple[uuid.UUID, datetime, str, str, str], int] = field(default_factory=dict)
    addresses: dict[tuple[uuid.UUID, str], Seen] = field(default_factory=dict)
    # Of each owner, also of one without a quota.
    quotas: dict[tuple[str, date], Spent] = field(default_factory=dict)
    # Of a COMMIT whose answer was lost, to be told when that is known.
    news: News | None = field(default=None, compare=False)

    def __len__(self) -> int:
        return sum(len(getattr(self, table)) for table in _TABLES)

    def add(self, hit: Hit) -> None:
        """Add one request."""
        key_id, at, outcome, address = hit.key_id, hit.at, hit.outcome, hit.address
        error = outcome not in GOOD
        _seen(self.keys, key_id, at, address).add(at, address, error)
        _seen(self.secrets, hit.secret_id, at, address).add(at, address, hit.in_grace)
        row = (key_id, hour_of(at), hit.route, hit.method, outcome)
        requests = self.usage.get(row, 0)
        if not requests and len(self.usage) >= MOST_ROWS:
            row = (key_id, row[1], OTHER, hit.method, outcome)
            requests = self.usage.get(row, 0)
        self.usage[row] = requests + 1
        if address:
            place = (key_id, address)
            if len(self.addresses) >= MOST_ROWS and place not in self.addresses:
                place = (key_id, OTHER)
            _seen(self.addresses, place, at, address).add(at, address, error)
        if outcome not in NOT_LET_THROUGH:
            # By the time of the request, as its usage is; the charge knows its own month.
            self.spent(hit.owner_id, month_of(at, hit.owner_id).first).requests += 1
        if hit.month is not None:
            spent = self.spent(hit.owner_id, hit.month)
            spent.units += hit.units
            spent.quota = hit.quota or 0

    def spent(self, owner_id: str, month: date) -> Spent:
        """Return what is added to an owner's month, to be added to."""
        found = self.quotas.get((owner_id, month))
        if found is None:
            found = self.quotas[owner_id, month] = Spent()
        return found

    def halves(self) -> tuple[Batch, Batch]:
        """Return its rows in two batches: the same two each time it is asked."""
        rows = [
            (table, name) for table in _TABLES for name in sorted(getattr(self, table), key=str)
        ]
        middle = len(rows) // 2
        return self._part("0", rows[:middle]), self._part("1", rows[middle:])

    def _part(self, mark: str, rows: Sequence[tuple[str, Any]]) -> Batch:
        part = Batch(uuid.uuid5(self.id, mark))
        for table, name in rows:
            getattr(part, table)[name] = getattr(self, table)[name]
        return part


_TABLES = ("keys", "secrets", "usage", "addresses", "quotas")


def _seen(rows: dict[Any, Seen], name: Any, at: datetime, address: str) -> Seen:
    found = rows.get(name)
    if found is None:
        found = rows[name] = Seen(at, address, 0, 0, at)
    return found


def hour_of(at: datetime) -> datetime:
    """Return when the hour of *at* began, by which usage is stored."""
    # Of UTC, also where the host's time is half an hour off; a naive one stays as it is.
    if at.tzinfo is not UTC and at.tzinfo is not None:
        at = at.astimezone(UTC)
    return at.replace(minute=0, second=0, microsecond=0)
