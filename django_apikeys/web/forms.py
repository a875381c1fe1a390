"""What people type on the pages."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils import timezone
from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from django_apikeys import validation
from django_apikeys.conf import conf
from django_apikeys.exceptions import ChangeRefused, NotPermitted
from django_apikeys.forms import ChangedKeyForm, MomentField, NewKeyForm, scope_choices
from django_apikeys.keys import scopes as grammar
from django_apikeys.web.owners import MOST_OWNERS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from datetime import datetime

    from django.utils.functional import _StrPromise

    from django_apikeys.authority import Authority
    from django_apikeys.web.owners import Owners

PRESETS = (30, 60, 90, 365)  # days
DEFAULT_PRESET = 90
_RATE_HELP = _(
    "For instance 300/m: 300 a minute; s, h and d are the other units. Empty: the plan's."
)
_GRACES = {
    0: _("none: it ends now"),
    60 * 60: _("1 hour"),
    24 * 60 * 60: _("24 hours"),
    7 * 24 * 60 * 60: _("7 days"),
    30 * 24 * 60 * 60: _("30 days"),
}


@dataclass(frozen=True, slots=True)
class ScopeBox:
    """A scope to tick. box: its input; description: of what it allows."""

    name: str
    description: str | _StrPromise
    box: forms.boundfield.BoundWidget


@dataclass(frozen=True, slots=True)
class ScopeGroup:
    """The scopes of one resource."""

    resource: str
    boxes: Sequence[ScopeBox]

    @property
    def title(self) -> str | _StrPromise:
        return _TITLES.get(self.resource, self.resource)

    @property
    def is_reserved(self) -> bool:
        """Whether they are about keys, and not about what the API has."""
        return self.resource in ("apikeys", "self")


class _PageForm:
    """What both forms of a key have on the pages; mixed into one of them."""

    fields: dict[str, forms.Field]

    def refuse(self: Any, error: ChangeRefused) -> None:
        """Show why ``services`` did not store it, beside the fields where it says which."""
        self._show(error)

    @property
    def scope_groups(self: Any) -> Sequence[ScopeGroup]:
        """The scopes that are offered, by resource, in the order of the registry."""
        groups: dict[str, list[ScopeBox]] = {}
        for box in self["scopes"]:
            name = str(box.data["value"])
            resource = name.partition(":")[0]
            groups.setdefault(resource, []).append(ScopeBox(name, _description(name), box))
        return [ScopeGroup(resource, boxes) for resource, boxes in groups.items()]

    @property
    def shown_scopes(self: Any) -> str:
        """The hidden input that says which scopes the page showed as ticked."""
        field = self["scopes"]
        return field.as_hidden(only_initial=True) if field.field.show_hidden_initial else ""

    def _offer_scopes(self, offered: Iterable[str]) -> None:
        wanted = set(offered)
        field: Any = self.fields["scopes"]
        field.choices = [choice for choice in field.choices if choice[0] in wanted]
        # The names are a legend of their own, and each description is read with its scope.
        field.widget.attrs.pop("class", None)


def _in_days(days: int) -> str:
    return ngettext("in %(days)d day", "in %(days)d days", days) % {"days": days}


class CreateForm(_PageForm, NewKeyForm):
    """What a new key is to be: what the model has, but for what has no place on a page."""

    owner = forms.CharField(label=_("Owner"), required=False, max_length=255)
    expires = forms.ChoiceField(
        label=_("Expires"),
        # Asked of each form: the days are counted in the language of the request.
        choices=lambda: [
            *((str(days), _in_days(days)) for days in PRESETS[:-1]),
            (str(PRESETS[-1]), _("in 1 year")),
            ("date", _("on a date")),
            ("never", _("never")),
        ],
    )
    expires_at = MomentField(label=_("Date"), required=False)

    field_order = (
        "owner",
        "name",
        "description",
        "environment",
        "scopes",
        "rate_limit",
        "allowed_ips",
        "expires",
        "expires_at",
        "enabled",
    )

    class Meta(NewKeyForm.Meta):
        fields: Any = (
            "name",
            "description",
            "environment",
            "scopes",
            "allowed_ips",
            "rate_limit",
            "enabled",
        )

    def __init__(self, *args: Any, owners: Owners, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        del self.fields["metadata"]
        self.authority = owners.authority
        self._owners = owners
        self.fields["new_id"].required = True
        self.fields["rate_limit"].help_text = _RATE_HELP
        self.fields["expires_at"].help_text = _in_zone()
        self.initial.update(_first_expiry())
        if owners.are_several:
            project = [("", _("The project itself"))] if owners.of_project else []
            self.fields["owner"].widget = owners.widget(after=project)
            # Not the project, which an empty choice stands for.
            self.initial.setdefault("owner", str(owners.first[0].pk) if owners.first else "")
        else:
            # Sent along: by now it may be another for whom they may create keys.
            self.fields["owner"].widget = forms.HiddenInput()
            self.initial["owner"] = _key_of(owners.only)
        self._offer_scopes(_grantable(owners))

    @property
    def live_environment(self) -> str:
        """The environment in which a key does harm."""
        return conf.ENVIRONMENTS[0]

    @property
    def was_sent_before(self) -> bool:
        """Whether this very form has made its key already."""
        return self.has_error("new_id", "repeated")

    def refuse(self, error: ChangeRefused) -> None:
        super().refuse(error)
        try:
            # Of two that are sent at the same moment the later one is refused only now.
            self.clean_new_id()
        except ValidationError as repeated:
            self.add_error("new_id", repeated)

    @property
    def chosen_owner(self) -> Any:
        """Whose key it is to be; None is the project itself."""
        return self.cleaned_data["owner"]

    def clean_owner(self) -> Any:
        """Return the owner; None is the project itself."""
        text: str = self.cleaned_data["owner"]
        if not text and not self._owners.are_several:
            return self._owners.only
        try:
            return self._authority.owner_named(text) if text else self._authority.project()
        except NotPermitted as error:
            raise ValidationError(str(error), code="not_permitted") from error

    def clean_expires_at(self) -> datetime | None:
        """Return when the key ends, however that was said."""
        chosen: str = self.cleaned_data.get("expires", "date")
        date: datetime | None = self.cleaned_data["expires_at"]
        if chosen == "date":
            if date is None:
                raise ValidationError(_("Say on which date."), code="required")
            return date
        if date is not None:
            raise ValidationError(
                _("Choose “on a date” above, or leave this empty."), code="contradiction"
            )
        return None if chosen == "never" else timezone.now() + timedelta(days=int(chosen))

    @property
    def _authority(self) -> Authority:
        return self._owners.authority


class SettingsForm(_PageForm, ChangedKeyForm):
    """What is to change of a key: only that is written."""

    class Meta(ChangedKeyForm.Meta):
        fields: Any = (
            "name",
            "description",
            "scopes",
            "allowed_ips",
            "rate_limit",
            "expires_at",
            "enabled",
        )

    def __init__(self, *args: Any, authority: Authority, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        del self.fields["metadata"]
        self.fields["rate_limit"].help_text = _RATE_HELP
        self.fields["expires_at"].help_text = format_lazy(
            "{} {}", _("Empty: never. A later date revives a key that has expired."), _in_zone()
        )
        # What it has stays on offer, or saving its name would take that away.
        offered = _grantable_for(authority, self.instance.owner)
        self._offer_scopes([*offered, *self.initial["scopes"]])


class ReasonForm(forms.Form):
    """Why a secret is retired, or a key deleted."""

    reason = forms.CharField(
        label=_("Reason"),
        required=False,
        max_length=validation.REASON_LENGTH,
        help_text=_("It stands in the history of the key."),
    )

    def clean_reason(self) -> str:
        """Return the reason as it may be stored."""
        return validation.clean_reason(self.cleaned_data["reason"])


class RetireForm(ReasonForm):
    """Why the previous secret ends, and which one the page showed."""

    # The public id: a rotation in between has made another the previous one, which is in use.
    previous = forms.CharField(
        widget=forms.HiddenInput, required=False, max_length=validation.PUBLIC_ID_LENGTH
    )


class RevokeForm(ReasonForm):
    """Why a key is revoked, and whether what was made through it is too."""

    cascade = forms.BooleanField(
        label=_("Also revoke every key that was made through it, to the last"), required=False
    )


class _RotationForm(ReasonForm):
    # The public id that the page showed: two rotations from the same page make one secret.
    current = forms.CharField(
        widget=forms.HiddenInput, required=False, max_length=validation.PUBLIC_ID_LENGTH
    )


class PlannedForm(_RotationForm):
    """A rotation that nothing is urgent about."""

    grace_seconds = forms.TypedChoiceField(
        label=_("The old secret works for"),
        coerce=int,
        choices=list(_GRACES.items()),
        initial=validation.GRACE_SECONDS,
    )
    starts = forms.ChoiceField(
        label=_("Counted from"),
        choices=[("now", _("now")), ("first_use", _("the first use of the new secret"))],
        initial="now",
    )
    field_order = ("grace_seconds", "starts", "reason", "current")


class LeakedForm(_RotationForm):
    """A rotation after a leak: no grace, and what may have been made by whoever found it."""

    cascade = forms.BooleanField(
        label=_("Revoke these keys too, and every key that was made through them"),
        required=False,
        initial=True,
    )
    field_order = ("cascade", "reason", "current")


_TITLES: Mapping[str, str | _StrPromise] = {
    "*": _("Everything"),
    "apikeys": _("API keys"),
    "self": _("This key"),
}


def _description(scope: str) -> str | _StrPromise:
    if scope == "*":
        return _("Everything but API keys themselves")
    resource, _colon, action = scope.partition(":")
    if action == "*":
        return _("Everything about %(resource)s") % {"resource": resource}
    return conf.SCOPES.get(scope) or _("No longer known; untick it to change the others")


def _key_of(owner: Any) -> str:
    return "" if owner is None else str(owner.pk)


def _grantable(owners: Owners) -> Collection[str]:
    """Return the scopes that may be granted to a key of one of *owners* at least."""
    found: set[str] = set()
    everything = {scope for scope, _label in scope_choices()}
    possible = [*owners.first[:MOST_OWNERS], *([None] * owners.of_project)]
    for owner in possible:
        found.update(_grantable_for(owners.authority, owner))
        if found >= everything:
            break  # whatever the other owners' are
    return found


def _grantable_for(authority: Authority, owner: Any) -> Collection[str]:
    # As the ceiling asks it, wildcards over all that may be granted included.
    implied, registry = conf.IMPLIED_SCOPES, conf.SCOPES
    granted = grammar.with_implied(authority.grantable(owner), implied)
    return [
        scope
        for scope, _label in scope_choices()
        if not grammar.beyond([scope], granted, registry, implied)
    ]


def _in_zone() -> str:
    return _("Time zone: %(zone)s.") % {"zone": timezone.get_current_timezone_name()}


def _first_expiry() -> dict[str, Any]:
    """Return the expiry that an empty form proposes: none that the settings would refuse."""
    default = validation.default_expiry(conf.ENVIRONMENTS[0])
    if default is None:
        return {"expires": str(DEFAULT_PRESET)}
    left = default - timezone.now()
    fitting = [days for days in PRESETS if timedelta(days=days) <= left + timedelta(minutes=1)]
    if fitting and timedelta(days=fitting[-1]) >= left - timedelta(days=1):
        return {"expires": str(fitting[-1])}
    return {"expires": "date", "expires_at": default}
