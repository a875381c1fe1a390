"""Counters on their way: as rows that the script merges, and back as a batch."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from django_apikeys import logs
from django_apikeys.batches import GOOD, MOST_ROWS, NOT_LET_THROUGH, OTHER, Batch, Seen, hour_of
from django_apikeys.quotas import Month, month_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from django_apikeys.batches import Hit
    from django_apikeys.limits import Demand
    from django_apikeys.recording import Use

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(slots=True)
class Row:
    """Requests of one name, and the first and last of them, as the script merges them.

    other: the name to use where there are too many. marked: those that failed, of a secret
    those in its grace. first, last: microseconds since 1970, 16 digits. text: of the last:
    its address, or the limit of a quota.
    """

    other: str
    requests: int
    marked: int
    first: str
    last: str
    text: str

    def merge(self, row: Row) -> None:
        self.requests += row.requests
        self.marked += row.marked
        self.first = min(self.first, row.first)
        if row.last >= self.last:
            self.last, self.text = row.last, row.text


Rows = dict[str, Row]


@dataclass(slots=True)
class Parcel:
    """Rows on their way to Redis, counted once however often they are sent.

    slot, number: a slot has one parcel on its way at a time, and numbers them upwards.
    charge: units of a quota, counted where the limits of the same trip let it pass.
    """

    sender: str
    slot: int
    number: int
    rows: Rows
    charge: Rows

    def as_json(self) -> dict[str, Any]:
        rows = {"slot": self.slot, "number": self.number, "rows": _listed(self.rows)}
        return {**rows, "charge": _listed(self.charge)[0]} if self.charge else rows


def _listed(rows: Rows) -> list[Any]:
    return [
        (name, row.other, row.requests, row.marked, row.first, row.last, row.text)
        for name, row in rows.items()
    ]


def _named(*parts: str) -> str:
    # JSON: whatever an owner's id or a route is made of, it comes out as it went in.
    return json.dumps(parts, separators=(",", ":"))


def _moment(at: datetime) -> str:
    return f"{(at - _EPOCH) // _MICROSECOND:016}"


def merge(rows: Rows, more: Rows) -> None:
    """Add *more* to *rows*."""
    for name, row in more.items():
        _add(rows, name, row)


def _add(rows: Rows, name: str, row: Row) -> None:
    if row.other and name not in rows and len(rows) >= MOST_ROWS:
        name = row.other
    if name in rows:
        rows[name].merge(row)
    else:
        rows[name] = row


def add_request(rows: Rows, use: Use | Hit, address: str) -> None:
    """Add to *rows* that a request came, from *address*; empty: none is stored."""
    at, key_id = _moment(use.at), str(use.key_id)
    _add(rows, _named("key", key_id), Row("", 1, 0, at, at, address))
    secret = _named("secret", str(use.secret_id))
    _add(rows, secret, Row("", 1, int(use.in_grace), at, at, address))
    if address:
        other = _named("address", key_id, OTHER)
        _add(rows, _named("address", key_id, address), Row(other, 1, 0, at, at, ""))


def add_answer(rows: Rows, hit: Hit) -> None:
    """Add to *rows* how a request was answered."""
    at, key_id = _moment(hit.at), str(hit.key_id)
    if hit.outcome not in GOOD:
        _add(rows, _named("key", key_id), Row("", 0, 1, at, at, hit.address))
    hour = hour_of(hit.at).isoformat()
    name = _named("usage", key_id, hour, hit.route, hit.method, hit.outcome)
    other = _named("usage", key_id, hour, OTHER, hit.method, hit.outcome)
    _add(rows, name, Row(other, 1, 0, at, at, ""))
    if hit.outcome not in NOT_LET_THROUGH:
        # Not in the row of the quota, whose text is its limit: not each request is charged.
        month = month_of(hit.at, hit.owner_id).first
        _add(rows, _named("owner", hit.owner_id, f"{month}"), Row("", 1, 0, at, at, ""))


def charge_of(use: Use, demands: Sequence[Demand]) -> Rows:
    """Return what a request costs of its quota, if there is one among *demands*."""
    month = demands[-1].window if demands else None
    if not isinstance(month, Month):
        return {}
    return _charged(use, month.first, demands[-1].units, demands[-1].limit)


def charge_of_hit(hit: Hit) -> Rows:
    """Return what an answered request has cost of its quota."""
    return {} if hit.month is None else _charged(hit, hit.month, hit.units, hit.quota or 0)


def _charged(use: Use | Hit, month: date, units: int, quota: int) -> Rows:
    at = _moment(use.at)
    return {_named("quota", use.owner_id, f"{month}"): Row("", units, 0, at, at, str(quota))}


def batch_of(id_: bytes, fields: Mapping[bytes, bytes]) -> Batch:
    """Return the batch *id_* with what Redis has counted in it."""
    # An empty one was deleted, or is none of ours: whatever its id is.
    batch = Batch(id=uuid.UUID(id_.decode())) if fields else Batch()
    for name, value in fields.items():
        if name == b"id":
            continue
        try:
            _read_row(batch, *json.loads(name), seen=_seen(value.decode()))
        except (ValueError, TypeError, OverflowError) as error:
            # Not ours: it would hold up what is.
            logs.once_a_minute("batch", "A counter in Redis was left out: %r: %r", name, error)
    return batch


def _seen(value: str) -> Seen:
    requests, marked, first, last, text = value.split(" ", 4)
    return Seen(_at(last), text, int(requests), int(marked), _at(first))


def _at(moment: str) -> datetime:
    return _EPOCH + int(moment) * _MICROSECOND


def _read_row(batch: Batch, kind: str, *name: str, seen: Seen) -> None:
    match kind, *name:
        case "key", key_id:
            batch.keys[uuid.UUID(key_id)] = seen
        case "secret", secret_id:
            batch.secrets[int(secret_id)] = seen
        case "address", key_id, address:
            batch.addresses[uuid.UUID(key_id), address] = seen
        case "usage", key_id, hour, route, method, outcome:
            row = (uuid.UUID(key_id), datetime.fromisoformat(hour), route, method, outcome)
            batch.usage[row] = seen.requests
        case "quota", owner_id, month:
            quota = int(seen.address)
            spent = batch.spent(owner_id, date.fromisoformat(month))
            spent.units, spent.quota = seen.requests, quota
        case "owner", owner_id, month:
            batch.spent(owner_id, date.fromisoformat(month)).requests = seen.requests
        case _:
            raise ValueError(kind)
