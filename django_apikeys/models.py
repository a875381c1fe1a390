"""The rows: one key, its secrets, its events, and counters in tables of their own.

Querysets here only read. Rows are written by ``services``, so that every change has its
Event, and counters by ``flushing``.
"""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from django.conf import settings
from django.db import connections, models, router
from django.db.models import Count, Min, Q, Value
from django.db.models.functions import Cast, Concat, Left, Length, Substr
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from django_apikeys.conf import conf
from django_apikeys.keys import scopes as grammar
from django_apikeys.keys.format import mask, pasted_public_id
from django_apikeys.keys.restrictions import CURRENT, PREVIOUS, is_retired

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from django.db.backends.base.base import BaseDatabaseWrapper

Status = Literal["active", "disabled", "expired", "revoked"]
STATUSES: tuple[Status, ...] = ("active", "disabled", "expired", "revoked")
EVENT_TYPES = (
    "created",
    "updated",
    "rotated",
    "retired",
    "revoked",
    "deleted",
    "revealed",
    "retired_secret_used",
)
# Of our own and of imported keys; what is shorter is no whole one.
SHORTEST_PUBLIC_ID = 8


class ExactCharField(models.CharField):  # type: ignore[type-arg]  # generic for the checker alone
    """Text that differs by case, also where the database's default does not."""

    def db_parameters(self, connection: BaseDatabaseWrapper) -> Any:
        parameters = super().db_parameters(connection)
        if connection.vendor == "mysql":
            parameters["collation"] = "utf8mb4_bin"
        return parameters


class APIKeyQuerySet(models.QuerySet["APIKey"]):
    """Keys as lists and forms ask for them."""

    def listed(self) -> APIKeyQuerySet:
        """Keys that are not deleted, with all that a list shows of each in two queries.

        From the primary database: a replica that lags would show a revoked key as active.
        """
        primary = router.db_for_write(self.model)
        live = APIKeySecret.objects.using(primary).filter(slot__isnull=False)
        live = live.select_related("totals").defer("encrypted").order_by("slot")
        related = ("owner", "created_by", "revoked_by", "totals")
        keys = self.using(primary).filter(deleted_at=None).select_related(*related)
        return keys.prefetch_related(  # type: ignore[no-redef]  # set by services too
            models.Prefetch("secrets", queryset=live, to_attr="live_secrets")
        )

    def with_status(self, status: Status, now: datetime) -> APIKeyQuerySet:
        """Keys whose status at *now* is *status*."""
        expired = Q(expires_at__isnull=False, expires_at__lte=now)
        return {
            "revoked": self.filter(revoked_at__isnull=False),
            "disabled": self.filter(revoked_at=None, enabled=False),
            "expired": self.filter(expired, revoked_at=None, enabled=True),
            "active": self.filter(~expired, revoked_at=None, enabled=True),
        }[status]

    def search(self, text: str) -> APIKeyQuerySet:
        """Keys by a part of name, description, public id or masked form."""
        text = text.strip()
        masked = re.fullmatch(r"(?:[a-z0-9]+_[a-z0-9]+_)?([0-9A-Za-z]{4})(?:…|\.{3})(\w{4})", text)
        if masked:
            return self.filter(_has_secret(public_id__startswith=masked[1], last_four=masked[2]))
        # A secret that was pasted: its public id finds the key; the rest stands in no query.
        if pasted := pasted_public_id(text):
            return self.filter(_has_secret(public_id__startswith=pasted))
        # What else is typed is looked for in all the names there are: a second among a million
        # keys. A whole public id is found by its index before that.
        if len(text) >= SHORTEST_PUBLIC_ID and text.isalnum():
            exact = self.filter(_has_secret(public_id=text))
            if exact.exists():
                return exact
        named = Q(name__icontains=text) | Q(description__icontains=text)
        return self.filter(_has_secret(public_id__startswith=text) | named)

    def live_offspring(self, keys: Iterable[APIKey]) -> dict[uuid.UUID, int]:
        """Return how many keys that are not revoked were made through each of *keys*."""
        primary = self.using(router.db_for_write(self.model))
        made = primary.filter(created_by_key__in=[key.pk for key in keys], revoked_at=None)
        counts = made.order_by().values_list("created_by_key").annotate(Count("pk"))
        return dict(counts)


def _has_secret(**asked: str) -> Q:
    return Q(pk__in=APIKeySecret.objects.filter(**asked).values("key_id"))


class APIKey(models.Model):
    """What an owner calls a key: a name, scopes and limits, whatever its secret is."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(
        conf.OWNER_MODEL,
        verbose_name=_("owner"),
        on_delete=models.CASCADE,
        related_name="api_keys",
        null=True,
        blank=True,
        help_text=_("Whom the key acts for. Empty: the project itself."),
    )
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("created by"),
        on_delete=models.SET_NULL,
        related_name="+",
        null=True,
        editable=False,
    )
    created_by_key = models.ForeignKey(
        "self",
        verbose_name=_("created by key"),
        on_delete=models.SET_NULL,
        related_name="offspring",
        null=True,
        editable=False,
    )
    name = models.CharField(_("name"), max_length=100)
    description = models.CharField(_("description"), max_length=1000, blank=True)
    environment = models.CharField(_("environment"), max_length=16)
    scopes = models.JSONField(_("scopes"), default=list, blank=True)
    allowed_ips = models.JSONField(
        _("allowed addresses"),
        default=list,
        blank=True,
        help_text=_("IP addresses and networks, one on a line. Empty: all."),
    )
    rate_limit = models.CharField(
        _("rate limit"),
        max_length=16,
        blank=True,
        help_text=_("For instance 300/m. Empty: that of the plan."),
    )
    enabled = models.BooleanField(_("enabled"), default=True)
    expires_at = models.DateTimeField(_("expires at"), null=True, blank=True)
    metadata = models.JSONField(_("metadata"), default=dict, blank=True)
    created_at = models.DateTimeField(_("created at"), default=timezone.now, editable=False)
    updated_at = models.DateTimeField(_("updated at"), default=timezone.now, editable=False)
    revoked_at = models.DateTimeField(_("revoked at"), null=True, editable=False)
    revoked_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("revoked by"),
        on_delete=models.SET_NULL,
        related_name="+",
        null=True,
        editable=False,
    )
    revoked_reason = models.CharField(_("reason"), max_length=500, blank=True, editable=False)
    deleted_at = models.DateTimeField(_("deleted at"), null=True, editable=False)

    objects = APIKeyQuerySet.as_manager()

    totals: APIKeyTotals  # of listed(); not every key has been used

    class Meta:
        verbose_name = _("API key")
        verbose_name_plural = _("API keys")
        ordering = ("-created_at", "-id")
        permissions = (("revoke_apikey", "Can revoke API key"),)
        indexes = (
            models.Index(fields=("owner", "-created_at"), name="apikeys_key_owner_created"),
            models.Index(fields=("-created_at", "-id"), name="apikeys_key_created"),
            # With the id, which breaks ties: most keys never expire, and would all be sorted.
            models.Index(fields=("expires_at", "id"), name="apikeys_key_expires"),
        )
        constraints = (
            models.CheckConstraint(
                condition=Q(deleted_at=None) | Q(revoked_at__isnull=False),
                name="apikeys_key_deleted_is_revoked",
            ),
        )

    def __str__(self) -> str:
        return self.name or str(self.pk)

    def refresh_from_db(self, *args: Any, **kwargs: Any) -> None:
        self.__dict__.pop("live_secrets", None)
        super().refresh_from_db(*args, **kwargs)

    def status_at(self, now: datetime) -> Status:
        """Return what the key is at *now*, in the order in which a request is refused."""
        if self.revoked_at is not None:
            return "revoked"
        if not self.enabled:
            return "disabled"
        if self.expires_at is not None and self.expires_at <= now:
            return "expired"
        return "active"

    @property
    def current_secret(self) -> APIKeySecret | None:
        """The secret that was made last; None for a row that has lost it."""
        return self._secret(CURRENT)

    def previous_secret_at(self, now: datetime) -> APIKeySecret | None:
        """Return the secret that is in its grace at *now*; None where there is none."""
        secret = self._secret(PREVIOUS)
        ended = secret is None or self.revoked_at is not None or secret.is_retired_at(now)
        return None if ended else secret

    @property
    def masked(self) -> str:
        """What may be shown of the current secret."""
        return self.current_secret.masked if self.current_secret else ""

    @property
    def granted_scopes(self) -> frozenset[str]:
        """The stored scopes as far as they are well formed."""
        return grammar.read_stored(self.scopes)

    def _secret(self, slot: int) -> APIKeySecret | None:
        if not hasattr(self, "live_secrets"):
            live = self.secrets.db_manager(self._state.db).filter(slot__isnull=False)
            live = live.select_related("key").defer("encrypted")
            self.live_secrets = list(live.order_by("slot"))
        return next((secret for secret in self.live_secrets if secret.slot == slot), None)


class APIKeySecret(models.Model):
    """One secret of a key; at most two of them are alive.

    slot: 0 the current, 1 the previous in its grace, null retired. With the key it
    is unique, which all three databases hold (MariaDB has no partial indexes).
    retires_at: when it ends, or has ended. grace_seconds: of the previous one, which waits
    for the first use of this one, and has no retires_at until then. reused_at: when it last
    came back after its end, as far as that left an Event. encrypted: the text itself, of the
    current secret, in the retrievable mode alone.
    """

    id = models.BigAutoField(primary_key=True)
    key = models.ForeignKey(APIKey, on_delete=models.CASCADE, related_name="secrets")
    prefix = models.CharField(max_length=16, blank=True)
    public_id = ExactCharField(max_length=64, unique=True)
    last_four = ExactCharField(max_length=4)
    digest = models.CharField(max_length=255)
    slot = models.PositiveSmallIntegerField(null=True, default=CURRENT)
    created_at = models.DateTimeField(default=timezone.now)
    retires_at = models.DateTimeField(null=True)
    grace_seconds = models.PositiveIntegerField(null=True)
    first_used_at = models.DateTimeField(null=True)
    reused_at = models.DateTimeField(null=True)
    encrypted = models.TextField(blank=True)

    class Meta:
        verbose_name = _("secret")
        verbose_name_plural = _("secrets")
        constraints = (
            models.UniqueConstraint(fields=("key", "slot"), name="apikeys_secret_one_in_a_slot"),
            models.CheckConstraint(
                condition=Q(slot__isnull=True) | Q(slot__in=(CURRENT, PREVIOUS)),
                name="apikeys_secret_slot_known",
            ),
        )

    def __str__(self) -> str:
        return self.masked

    @property
    def masked(self) -> str:
        """What may be shown: ``rak_live_7Fq2…WtB2``."""
        return mask(self.prefix, self.key.environment, self.public_id, self.last_four)

    def is_retired_at(self, now: datetime) -> bool:
        """Tell whether the secret has ended, whatever its key is."""
        return is_retired(self.slot, self.retires_at, now)


def count_by_pepper() -> list[tuple[str, str, int]]:
    """Return each pepper that secrets which may still verify need.

    As its name, a digest under it, and the number of these secrets.
    """
    secrets = APIKeySecret.objects.using(router.db_for_write(APIKeySecret))
    alive = secrets.filter(slot__isnull=False, key__revoked_at=None)
    # hmac-sha256$<pepper>$, without the 64 digits behind it.
    by_head = alive.values(head=Left("digest", Length("digest") - 64)).order_by("head")
    rows = by_head.annotate(count=Count("pk"), sample=Min("digest"))
    return [
        (row["head"].rstrip("$").partition("$")[2], row["sample"], row["count"]) for row in rows
    ]


def count_by_encryption_key() -> list[tuple[str, int]]:
    """Return the name of each key that kept secrets need, and the number of these secrets."""
    secrets = APIKeySecret.objects.using(router.db_for_write(APIKeySecret))
    by_name = secrets.exclude(encrypted="").values(name=Left("encrypted", 8)).order_by("name")
    return list(by_name.annotate(count=Count("pk")).values_list("name", "count"))


class AppendOnlyQuerySet(models.QuerySet["APIKeyEvent"]):
    """Rows that are added and read, nothing else."""

    def visible(self, owners: models.QuerySet[Any], *, of_project: bool) -> AppendOnlyQuerySet:
        """Events of *owners*, and those of keys without an owner where *of_project* is set.

        In one query, and from the primary database, as the keys.
        """
        primary = router.db_for_write(self.model)
        as_text = _pk_as_text(owners.model, connections[primary])
        visible = Q(owner_id__in=owners.values_list(as_text))
        if of_project:
            visible |= Q(owner_id="")
        return self.using(primary).filter(visible)

    def of_key(self, key: APIKey) -> AppendOnlyQuerySet:
        """Events of *key*, from the primary database."""
        return self.using(router.db_for_write(self.model)).filter(key_id=key.pk)

    def bulk_create(self, objs: Any, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("update_conflicts"):
            raise TypeError("An event is never changed.")
        return super().bulk_create(objs, *args, **kwargs)

    def update(self, **kwargs: Any) -> NoReturn:
        raise TypeError("An event is never changed.")

    def delete(self) -> NoReturn:
        raise TypeError("An event is never deleted.")


def _pk_as_text(model: type[models.Model], connection: BaseDatabaseWrapper) -> Any:
    # What str(pk) is, with which services fill owner_id, for the keys there are: whole
    # numbers, texts and UUIDs. The text of any other column that differs from it hides
    # events, and shows nobody those of others.
    field: Any = model._meta.pk
    while field.remote_field:
        field = field.target_field
    if isinstance(field, models.UUIDField) and not connection.features.has_native_uuid_field:
        # There it is 32 digits; a cast alone would never equal the text with dashes.
        parts = [Substr("pk", start, length) for start, length in _UUID_PARTS]
        return Concat(*[piece for part in parts for piece in (Value("-"), part)][1:])
    return Cast("pk", models.CharField(max_length=255))


# Where the five groups of a UUID begin in its 32 digits, and how long they are.
_UUID_PARTS = ((1, 8), (9, 4), (13, 4), (17, 4), (21, 12))


class APIKeyEvent(models.Model):
    """What was done to a key, by whom and from where.

    Names stand as text and there are no foreign keys: an event outlives its key, its
    owner and its actor unchanged.
    """

    id = models.BigAutoField(primary_key=True)
    at = models.DateTimeField(default=timezone.now)
    type = models.CharField(_("type"), max_length=32)
    key_id = models.UUIDField(null=True)  # null: of an owner alone
    key_name = models.CharField(_("key name"), max_length=100, blank=True)
    key_masked = models.CharField(_("key masked"), max_length=100, blank=True)
    owner_id = ExactCharField(_("owner id"), max_length=255, blank=True)
    owner_name = models.CharField(_("owner name"), max_length=255, blank=True)
    actor_kind = models.CharField(_("actor kind"), max_length=8)
    actor_id = models.CharField(_("actor id"), max_length=255, blank=True)
    actor_name = models.CharField(_("actor name"), max_length=255, blank=True)
    address = models.CharField(_("address"), max_length=45, blank=True)
    user_agent = models.CharField(_("user agent"), max_length=255, blank=True)
    reason = models.CharField(_("reason"), max_length=500, blank=True)
    changes = models.JSONField(default=dict)

    objects = AppendOnlyQuerySet.as_manager()

    class Meta:
        verbose_name = _("event")
        verbose_name_plural = _("events")
        ordering = ("-at", "-id")
        base_manager_name = "objects"
        default_permissions = ("view",)
        indexes = (
            models.Index(fields=("key_id", "-at"), name="apikeys_event_key_at"),
            models.Index(fields=("owner_id", "-at"), name="apikeys_event_owner_at"),
        )

    def __str__(self) -> str:
        return f"{self.type} {self.key_masked}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise TypeError("An event is never changed.")
        # Else Django would UPDATE the event whose id this one was given.
        super().save(*args, **{**kwargs, "force_insert": True})

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("An event is never deleted.")


# Counters. They have no foreign key constraints: a key that was deleted must not
# fail a flush, and a flush must not lock a key that somebody wants to revoke.


class APIKeyTotals(models.Model):
    """All that a key was ever used, and when last."""

    key = models.OneToOneField(
        APIKey,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        primary_key=True,
        related_name="totals",
    )
    requests = models.BigIntegerField(default=0)
    errors = models.BigIntegerField(default=0)
    last_used_at = models.DateTimeField(null=True)
    last_used_ip = models.CharField(max_length=45, blank=True)

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.key_id}: {self.requests}"


class APIKeySecretTotals(models.Model):
    """The same for one secret; in_grace: requests after another had taken its place."""

    secret = models.OneToOneField(
        APIKeySecret,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        primary_key=True,
        related_name="totals",
    )
    requests = models.BigIntegerField(default=0)
    in_grace = models.BigIntegerField(default=0)
    last_used_at = models.DateTimeField(null=True)
    last_used_ip = models.CharField(max_length=45, blank=True)

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.secret_id}: {self.requests}"


class APIKeyUsage(models.Model):
    """Requests of a key in a span of time (UTC), by route, method and outcome.

    hours: the length of the span, 1, or 24 once hours were rolled into days.
    """

    id = models.BigAutoField(primary_key=True)
    key_id = models.UUIDField()
    starts_at = models.DateTimeField()
    hours = models.PositiveSmallIntegerField(default=1)
    route = ExactCharField(max_length=200)
    method = models.CharField(max_length=8)
    outcome = models.CharField(max_length=8)
    requests = models.BigIntegerField(default=0)

    class Meta:
        default_permissions = ()
        constraints = (
            models.UniqueConstraint(
                fields=("key_id", "starts_at", "hours", "route", "method", "outcome"),
                name="apikeys_usage_one_row_each",
            ),
        )
        indexes = (models.Index(fields=("starts_at",), name="apikeys_usage_starts_at"),)

    def __str__(self) -> str:
        return f"{self.key_id} {self.starts_at} {self.method} {self.route} {self.outcome}"


class APIKeyAddress(models.Model):
    """An address that a key was used from."""

    id = models.BigAutoField(primary_key=True)
    key_id = models.UUIDField()
    address = models.CharField(max_length=45)
    first_seen_at = models.DateTimeField()
    last_seen_at = models.DateTimeField()
    requests = models.BigIntegerField(default=0)

    class Meta:
        default_permissions = ()
        constraints = (
            models.UniqueConstraint(
                fields=("key_id", "address"), name="apikeys_address_one_row_each"
            ),
        )

    def __str__(self) -> str:
        return f"{self.key_id} {self.address}"


class OwnerQuota(models.Model):
    """What an owner, with a quota or without, has used of a calendar month, over all keys.

    owner_id: empty for the project itself. units: what its quota was charged; 0 where there
    was none. requests: those that were let through, whatever they cost.
    """

    id = models.BigAutoField(primary_key=True)
    owner_id = ExactCharField(max_length=255)
    month = models.DateField()
    units = models.BigIntegerField(default=0)
    requests = models.BigIntegerField(default=0)

    class Meta:
        default_permissions = ()
        constraints = (
            models.UniqueConstraint(
                fields=("owner_id", "month"), name="apikeys_quota_one_row_each"
            ),
        )

    def __str__(self) -> str:
        return f"{self.owner_id} {self.month}: {self.units}"


class FlushedBatch(models.Model):
    """A batch of counters that was applied: the same id is never applied again."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    at = models.DateTimeField(default=timezone.now, db_index=True)

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return str(self.id)


class APIKeyNotice(models.Model):
    """A notice about a key: claimed by its row before it is sent, so that it is sent once.

    about: what makes another notice of the same kind: the expiry, say. claimed_at: by whoever
    sends it now; sent_at: null until that is done.
    """

    id = models.BigAutoField(primary_key=True)
    key = models.ForeignKey(APIKey, on_delete=models.CASCADE, related_name="notices")
    kind = models.CharField(max_length=16)
    about = models.CharField(max_length=64)
    claimed_at = models.DateTimeField()
    sent_at = models.DateTimeField(null=True)

    class Meta:
        default_permissions = ()
        constraints = (
            models.UniqueConstraint(
                fields=("key", "kind", "about"), name="apikeys_notice_one_row_each"
            ),
        )

    def __str__(self) -> str:
        return f"{self.kind} {self.key_id}"
