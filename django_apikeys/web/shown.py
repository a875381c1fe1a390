"""A key as the pages show it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ObjectDoesNotExist
from django.utils.functional import cached_property
from django.utils.translation import gettext as _

from django_apikeys.conf import conf
from django_apikeys.keys.restrictions import ends_at
from django_apikeys.web import charts, words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.utils.functional import _StrPromise

    from django_apikeys.models import APIKey, APIKeySecret, APIKeyTotals, Status
    from django_apikeys.web.charts import Chart
    from django_apikeys.web.words import Moment

_SCOPES_IN_A_ROW = 2
_SOON = timedelta(days=7)
_QUIET = timedelta(hours=24)  # after which a secret seems to be used by nobody


@dataclass(frozen=True)
class ShownKey:
    """What templates ask of *key*, of ``listed()``: no query of its own, everything as text.

    days: its requests by day, where the page draws them.
    """

    key: APIKey
    now: datetime
    days: Sequence[int] = field(default=())

    @property
    def pk(self) -> Any:
        return self.key.pk

    @property
    def name(self) -> str:
        return str(self.key)

    @cached_property
    def status(self) -> Status:
        return self.key.status_at(self.now)

    @property
    def status_name(self) -> str | _StrPromise:
        return words.STATUS_NAMES[self.status]

    @property
    def is_over(self) -> bool:
        """Whether it is greyed out."""
        return self.status in ("expired", "revoked")

    @property
    def public_id(self) -> str:
        return self.key.current_secret.public_id if self.key.current_secret else ""

    @property
    def owner_name(self) -> str:
        if self.key.owner is None:
            return _("The project itself")
        return conf.policy.owner_name(self.key.owner)

    @property
    def created_by(self) -> str:
        if self.key.created_by is not None:
            return str(self.key.created_by.get_username())
        return _("another key") if self.key.created_by_key_id else ""

    @property
    def scopes(self) -> Sequence[str]:
        return sorted(self.key.granted_scopes)

    @property
    def first_scopes(self) -> Sequence[str]:
        return self.scopes[:_SCOPES_IN_A_ROW]

    @property
    def more_scopes(self) -> Sequence[str]:
        return self.scopes[_SCOPES_IN_A_ROW:]

    @property
    def allowed_ips(self) -> Sequence[str]:
        stored = self.key.allowed_ips
        return [str(text) for text in stored] if isinstance(stored, list) else []

    @property
    def is_open(self) -> bool:
        """Whether it is for live use, and works from everywhere."""
        return self.is_live and self.key.allowed_ips == []

    @property
    def is_live(self) -> bool:
        """Whether it is for live use, as the first environment is."""
        return self.key.environment == conf.ENVIRONMENTS[0]

    @property
    def rate(self) -> str:
        return words.rate(self.key.rate_limit)

    @property
    def requests(self) -> str:
        return words.number(self._totals.requests if self._totals else 0)

    @property
    def errors(self) -> str:
        return words.number(self._totals.errors if self._totals else 0)

    @property
    def last_used(self) -> Moment | None:
        return words.moment(self._totals.last_used_at if self._totals else None, self.now)

    @property
    def last_used_ip(self) -> str:
        return self._totals.last_used_ip if self._totals else ""

    @property
    def created(self) -> Moment:
        return words.Moment(self.key.created_at, self.now)

    @property
    def expires(self) -> Moment | None:
        return words.moment(self.key.expires_at, self.now)

    @property
    def ends_soon(self) -> bool:
        """Whether somebody should see to its expiry."""
        end = self.key.expires_at
        return self.status == "active" and end is not None and end <= self.now + _SOON

    @property
    def revoked(self) -> Moment | None:
        return words.moment(self.key.revoked_at, self.now)

    @property
    def revoked_by(self) -> str:
        return str(self.key.revoked_by.get_username()) if self.key.revoked_by else ""

    @property
    def revoked_reason(self) -> str:
        return words.reason(self.key.revoked_reason)

    @property
    def secret_made(self) -> Moment | None:
        current = self.key.current_secret
        return words.moment(current.created_at if current else None, self.now)

    @property
    def rotation_is_due(self) -> bool:
        """Whether its secret is older than a secret should be."""
        current = self.key.current_secret
        if current is None or self.status != "active":
            return False
        return current.created_at + timedelta(days=conf.ROTATION_DAYS) <= self.now

    @cached_property
    def previous(self) -> ShownSecret | None:
        """The previous secret, in its grace; None where there is none."""
        secret = self.key.previous_secret_at(self.now)
        return None if secret is None else ShownSecret(secret, self.key, self.now)

    @cached_property
    def chart(self) -> Chart:
        return charts.small(self.days)

    @cached_property
    def _totals(self) -> APIKeyTotals | None:
        try:
            return self.key.totals
        except ObjectDoesNotExist:
            return None


@dataclass(frozen=True)
class ShownSecret:
    """What templates ask of the previous secret of *key*."""

    secret: APIKeySecret
    key: APIKey
    now: datetime

    @property
    def masked(self) -> str:
        return self.secret.masked

    @property
    def uses(self) -> int:
        """Requests that came with it since there is another."""
        try:
            return self.secret.totals.in_grace
        except ObjectDoesNotExist:
            return 0

    @property
    def uses_shown(self) -> str:
        return words.number(self.uses)

    @property
    def last_used(self) -> Moment | None:
        try:
            at = self.secret.totals.last_used_at
        except ObjectDoesNotExist:
            at = None
        return words.moment(at, self.now)

    @property
    def is_safe_to_retire(self) -> bool:
        """Whether nobody seems to need it.

        Once the new one is in use, or for a day there: right after a rotation no uses mean
        nothing.
        """
        current = self.key.current_secret
        if current is None or (
            current.first_used_at is None and self.now - current.created_at < _QUIET
        ):
            return False
        used = self.last_used
        return not self.uses or (used is not None and self.now - used.at >= _QUIET)

    @property
    def waits(self) -> bool:
        """Whether its grace begins only with the first use of the new one."""
        return self.secret.retires_at is None

    @property
    def ends(self) -> Moment | None:
        return words.moment(ends_at(self.secret.retires_at, self.key.expires_at), self.now)
