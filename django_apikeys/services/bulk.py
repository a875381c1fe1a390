"""Many keys are revoked, however many: those of an owner, of a creator, of a list."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from django.apps import apps
from django.db import OperationalError, router, transaction
from django.db.models import Prefetch, QuerySet, prefetch_related_objects

from django_apikeys import validation
from django_apikeys.actors import Actor
from django_apikeys.conf import conf
from django_apikeys.exceptions import ChangeRefused
from django_apikeys.models import APIKey, APIKeySecret
from django_apikeys.services.changes import forget_texts, in_transaction, lock
from django_apikeys.services.keys import revoke_row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from uuid import UUID

    from django_apikeys.authority import Authority
    from django_apikeys.pruning import Watcher
    from django_apikeys.services.changes import ActorLike


_T = TypeVar("_T")

# Keys of one transaction: nothing waits beside it for longer.
MOST_KEYS = 100
# Beside cascades MariaDB finds deadlocks in the gaps of an index.
TRIES = 5
# How often is looked again for keys that were made meanwhile.
MOST_LOOKS = 10


@dataclass(frozen=True, slots=True)
class RevokedKeys:
    """What came of a run.

    ids: of the keys that it revoked. refused: why others were not. is_complete: whether
    its last look found no more; False where keys were made as fast as it revoked them.
    """

    ids: Sequence[UUID]
    refused: Mapping[UUID, ChangeRefused]
    is_complete: bool


def revoke_keys(
    *,
    keys: QuerySet[APIKey] | Iterable[APIKey],
    actor: ActorLike = None,
    authority: Authority | None = None,
    reason: str = "",
    cascade: bool = False,
    watch: Watcher | None = None,
) -> RevokedKeys:
    """Revoke *keys* for good, and say what came of it; one that was already stays as it is.

    Up to 100 keys in a transaction, each with an Event and a signal of its own; one that is
    refused holds up no others. A run that was interrupted is begun again: what it revoked
    stays revoked. Within a transaction of the caller's it is one step with that.

    keys: a queryset is looked at again, up to 10 times, until it finds no more. So no key
    is left that it found at that moment: what is made for the owner while the run is under
    way is revoked too. A key whose creation commits later is not: take away first what
    lets anybody make one. A list, and a slice of a queryset, is what it is.
    cascade: also every key that was made through these, to the last, be the one between
    revoked or deleted. Through a key that this run has revoked no other can be made.
    authority: what the policy says of each owner is asked here too, the ceiling under the
    lock. The key through which is asked goes last, where it is among them.
    watch: called after each transaction with "keys", those done and those found until then.

    Raises InvalidInput where *reason* is too long; KeyRefused as ``update_key``;
    django.db.Error. What was done until then stays done.
    """
    reason = validation.clean({"reason": reason})["reason"]
    run = _Run(Actor.of(actor), authority, reason, watch)
    looks = MOST_LOOKS if _can_be_looked_at_again(keys) else 1
    found_more = True
    while found_more and looks:
        found_more = run.revoke(_found(keys, cascade=cascade), cascade=cascade)
        looks -= 1
    run.finish()
    is_complete = not (found_more and _can_be_looked_at_again(keys))
    return RevokedKeys(run.ids, run.refused, is_complete)


def keys_to_revoke(
    *, keys: QuerySet[APIKey] | Iterable[APIKey], cascade: bool = False
) -> list[UUID]:
    """Return the ids of the keys that ``revoke_keys`` would revoke now, for who may."""
    level = dict.fromkeys(_found(keys, cascade=cascade))
    seen = set(level)
    alive: list[UUID] = []
    while level:
        for batch in _batches(list(level)):
            live = _keys().filter(pk__in=batch, revoked_at=None)
            alive += live.order_by("pk").values_list("pk", flat=True)
        made = _made_through(list(level)) if cascade else ()
        level = dict.fromkeys(id_ for id_ in made if id_ not in seen)
        seen.update(level)
    return alive


@dataclass(slots=True)
class _Run:
    who: Actor
    authority: Authority | None
    reason: str
    watch: Watcher | None
    ids: list[UUID] = field(default_factory=list)
    refused: dict[UUID, ChangeRefused] = field(default_factory=dict)
    _seen: set[UUID] = field(default_factory=set)
    _done: int = 0
    _asked: set[Any] = field(default_factory=set)

    @property
    def _own_id(self) -> UUID | None:
        return None if self.authority is None else self.authority.key_id

    def revoke(self, ids: Iterable[UUID], *, cascade: bool) -> bool:
        """Revoke those of these keys that are new to the run; tell whether there were any."""
        level = self._new(ids)
        found = bool(level)
        # Level by level: through a key that is revoked no other is made, so that the next
        # one is whole once this one is done.
        while level:
            for batch in _batches([id_ for id_ in level if id_ != self._own_id]):
                self._revoke(batch)
            level = self._new(_made_through(level)) if cascade else []
        return found

    def finish(self) -> None:
        """Revoke the key through which is asked, which can ask for nothing more after it."""
        if self._own_id in self._seen:
            self._revoke([self._own_id])

    def _new(self, ids: Iterable[UUID]) -> list[UUID]:
        new = [id_ for id_ in dict.fromkeys(ids) if id_ not in self._seen]
        self._seen.update(new)
        return new

    def _revoke(self, ids: Sequence[UUID]) -> None:
        revoked, refused = _in_transaction(lambda: self._revoke_batch(ids))
        self.refused |= refused
        self.ids += revoked
        self._done += len(ids)
        if self.watch is not None:
            self.watch("keys", self._done, len(self._seen))

    def _revoke_batch(self, ids: Sequence[UUID]) -> tuple[list[UUID], dict[UUID, ChangeRefused]]:
        """Return which of these keys are revoked by now, and why others are not."""
        rows = lock(ids, self.authority)
        alive = [row for row in rows.values() if row.revoked_at is None]
        _load_what_events_tell(alive)
        refused = {row.pk: error for row in alive if (error := self._refusal(row))}
        revoked = [
            revoke_row(row, self.who, self.reason) for row in alive if row.pk not in refused
        ]
        forget_texts(revoked)
        # Where rows cannot be locked, another may have been there first.
        return [row.pk for row in revoked if row.revoked_at is not None], refused

    def _refusal(self, key: APIKey) -> ChangeRefused | None:
        if self.authority is None:
            return None
        try:
            self._require(self.authority, key.owner_id)
            self.authority.check("revoke", key, key)
        except ChangeRefused as error:
            return error
        return None

    def _require(self, authority: Authority, owner_id: Any) -> None:
        if owner_id not in self._asked:
            authority.require("revoke", owner_id)
            self._asked.add(owner_id)


def _load_what_events_tell(keys: Sequence[APIKey]) -> None:
    """Load the owner and the secrets of *keys*, which are locked, in a statement each."""
    using = router.db_for_write(APIKey)
    owners = apps.get_model(conf.OWNER_MODEL)._base_manager.using(using)
    secrets = APIKeySecret.objects.using(using).filter(slot__isnull=False).order_by("slot")
    prefetch_related_objects(
        keys,
        Prefetch("owner", queryset=owners),
        Prefetch("secrets", queryset=secrets, to_attr="live_secrets"),
    )


def _found(keys: QuerySet[APIKey] | Iterable[APIKey], *, cascade: bool) -> Iterable[UUID]:
    """Return the ids of *keys* in the order in which everybody locks them."""
    if not _can_be_looked_at_again(keys):
        return sorted(key.pk for key in keys)
    rows: QuerySet[APIKey] = keys.using(router.db_for_write(APIKey))  # type: ignore[union-attr]  # a queryset
    if not cascade:
        rows = rows.filter(revoked_at=None)
    return rows.order_by("pk").values_list("pk", flat=True)


def _can_be_looked_at_again(keys: QuerySet[APIKey] | Iterable[APIKey]) -> bool:
    return isinstance(keys, QuerySet) and not keys.query.is_sliced


def _made_through(ids: Sequence[UUID]) -> Iterator[UUID]:
    within = transaction.get_connection(router.db_for_write(APIKey)).in_atomic_block
    # Within a transaction of the caller's the snapshot of MariaDB may be older than a child,
    # which a locking read sees.
    keys = _keys().select_for_update() if within else _keys()
    for batch in _batches(ids):
        made = keys.filter(created_by_key__in=batch)
        yield from made.order_by("pk").values_list("pk", flat=True)


def _in_transaction(work: Callable[[], _T]) -> _T:
    """Do *work* in a transaction; again, where the database ends a deadlock by it."""
    connection = transaction.get_connection(router.db_for_write(APIKey))
    # One that is a part of the caller's was rolled back as a whole.
    for _try in range(0 if connection.in_atomic_block else TRIES - 1):
        try:
            with in_transaction():
                return work()
        except OperationalError:
            connection.close_if_unusable_or_obsolete()
    with in_transaction():
        return work()


def _batches(ids: Sequence[UUID]) -> Iterator[Sequence[UUID]]:
    for start in range(0, len(ids), MOST_KEYS):
        yield ids[start : start + MOST_KEYS]


def _keys() -> QuerySet[APIKey]:
    return APIKey.objects.using(router.db_for_write(APIKey))
