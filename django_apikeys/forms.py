"""The settings of a key, and what is asked of a rotation, as forms."""

from __future__ import annotations

import json
import uuid
from datetime import UTC
from typing import TYPE_CHECKING, Any

from django import forms
from django.core.exceptions import ValidationError
from django.forms.utils import to_current_timezone
from django.utils.dateparse import parse_datetime
from django.utils.functional import cached_property
from django.utils.translation import gettext_lazy as _

from django_apikeys import validation
from django_apikeys.conf import conf
from django_apikeys.exceptions import BeyondCeiling, ChangeRefused, InvalidInput, NotPermitted
from django_apikeys.keys.scopes import is_reserved
from django_apikeys.models import APIKey

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from django.utils.functional import _StrPromise

    from django_apikeys.authority import Authority


class TextField(forms.CharField):
    """Text of several lines, which end as others write them and not as browsers do."""

    widget = forms.Textarea

    def to_python(self, value: Any) -> str:
        return (super().to_python(value) or "").replace("\r\n", "\n")


class LinesField(forms.CharField):
    """A list of texts: one on a line, or as JSON."""

    widget = forms.Textarea

    def to_python(self, value: Any) -> Any:
        text = super().to_python(value) or ""
        if not text.startswith("["):
            return text.split()
        return _from_json(text, _("Write one entry on a line."))

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(value) if isinstance(value, (list, tuple)) else value


class MetadataField(forms.CharField):
    """A JSON object, shown again as it was written.

    Not forms.JSONField: it fails on JSON that is nested deeply, has numbers of
    thousands of digits, or says a text that no page can be written with.
    """

    widget = forms.Textarea

    def to_python(self, value: Any) -> Any:
        text = super().to_python(value)
        return _from_json(text, _("Enter a JSON object.")) if text else {}

    def prepare_value(self, value: Any) -> Any:
        return value if isinstance(value, str) else json.dumps(value)


def _from_json(text: str, advice: str | _StrPromise) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValidationError(advice, code="invalid") from error


class _MomentInput(forms.DateTimeInput):
    input_type = "datetime-local"
    # What the field compares is whole: to cut it here would look like a change.
    supports_microseconds = True

    def __init__(self) -> None:
        # The one format that browsers take; by steps of a second, so that none is lost.
        super().__init__(attrs={"step": "1"}, format="%Y-%m-%dT%H:%M:%S")


class MomentField(forms.DateTimeField):
    """A moment as browsers send it, in UTC.

    stored: what the page shows. Sent back as it was shown it stands for that very
    moment, with its microseconds, and in the hour that a time zone has twice.
    """

    widget = _MomentInput
    stored: datetime | None = None

    def to_python(self, value: Any) -> datetime | None:
        if self.stored is not None and isinstance(value, str):
            shown = to_current_timezone(self.stored)
            if _to_the_second(_parsed(value)) == _to_the_second(shown):
                return self.stored
        moment = super().to_python(value)
        try:
            return None if moment is None else moment.astimezone(UTC)
        except OverflowError as error:
            raise ValidationError(self.error_messages["invalid"], code="invalid") from error

    def has_changed(self, initial: Any, data: Any) -> bool:
        try:
            return _to_the_second(self.to_python(data)) != _to_the_second(initial)
        except ValidationError:
            return True


def _parsed(text: str) -> datetime | None:
    try:
        return parse_datetime(text.strip())
    except ValueError:
        return None


def _to_the_second(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.replace(microsecond=0)


class _HiddenWords(forms.HiddenInput):
    """A list in one input, also an empty one, which several inputs could not say."""

    def format_value(self, value: Any) -> str:
        return " ".join(value or ())


class ScopesField(forms.MultipleChoiceField):
    """Any number of the registered scopes, and of the wildcards over them."""

    widget = forms.CheckboxSelectMultiple(attrs={"class": "apikeys-scopes"})
    hidden_widget = _HiddenWords

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(choices=scope_choices, required=False, **kwargs)

    def to_python(self, value: Any) -> list[str]:
        return super().to_python(value.split() if isinstance(value, str) else value)


def scope_choices() -> Sequence[tuple[str, str | _StrPromise]]:
    """Return every scope that a key can have, with its description."""
    registry = conf.SCOPES
    choices: list[tuple[str, str | _StrPromise]] = [
        (scope, f"{scope} · {text}" if text else scope) for scope, text in registry.items()
    ]
    resources = dict.fromkeys(scope.partition(":")[0] for scope in registry)
    choices += [(f"{name}:*", f"{name}:*") for name in resources if not is_reserved(name)]
    return [*choices, ("*", _("* · everything but API keys themselves"))]


class _KeyForm(forms.ModelForm):  # type: ignore[type-arg]  # generic for the checker alone
    """What can be said of a key; ``validated`` has it as ``services`` takes it."""

    description = TextField(
        label=_("Description"), required=False, widget=forms.Textarea(attrs={"rows": 3})
    )
    scopes = ScopesField(label=_("Scopes"))
    allowed_ips = LinesField(
        label=_("Allowed addresses"),
        required=False,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text=_("IP addresses and networks, one on a line. Empty: all."),
    )
    expires_at = MomentField(label=_("Expires at"), required=False, help_text=_("Empty: never."))
    metadata = MetadataField(
        label=_("Metadata"), required=False, initial=dict, widget=forms.Textarea(attrs={"rows": 3})
    )

    # What ``services`` said when this was to be stored, in the request at hand.
    refused: ChangeRefused | None = None

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        try:
            self.validated = self._validated(cleaned)
        except InvalidInput as error:
            self._show(error)
        if self.refused is not None and not self.errors:
            self._show(self.refused)
        return cleaned

    def _validated(self, cleaned: Mapping[str, Any]) -> dict[str, Any]:
        given = {name: cleaned[name] for name in validation.CLEANERS if name in cleaned}
        return validation.clean(given)

    def _show(self, error: ChangeRefused) -> None:
        for name, problem in _problems(error).items():
            self.add_error(name if name in self.fields else None, problem)


def _problems(error: ChangeRefused) -> Mapping[str, Any]:
    if isinstance(error, InvalidInput):
        return error.error_dict
    if isinstance(error, BeyondCeiling):
        # Each in its own words, beside its own field.
        return {name: str(BeyondCeiling({name: texts})) for name, texts in error.beyond.items()}
    return {"": str(error)}


class NewKeyForm(_KeyForm):
    """What a new key is to be."""

    # Of the key to be: the same form sent twice, by a reload say, makes one key.
    new_id = forms.UUIDField(required=False, widget=forms.HiddenInput, initial=uuid.uuid4)
    environment = forms.ChoiceField(
        label=_("Environment"), choices=lambda: [(name, name) for name in conf.ENVIRONMENTS]
    )

    # Of the person who fills it in; None lets them do everything.
    authority: Authority | None = None

    class Meta:
        model = APIKey
        fields = (
            "owner",
            "name",
            "description",
            "environment",
            "scopes",
            "allowed_ips",
            "rate_limit",
            "expires_at",
            "enabled",
            "metadata",
        )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["name"].required = conf.REQUIRE_NAME

    def clean_new_id(self) -> uuid.UUID | None:
        new_id: uuid.UUID | None = self.cleaned_data["new_id"]
        if new_id is not None and APIKey.objects.filter(pk=new_id).exists():
            raise ValidationError(_("This key was created already."), code="repeated")
        return new_id

    def clean_owner(self) -> Any:
        owner = self.cleaned_data["owner"]
        if self.authority is not None:
            try:
                self.authority.require("create", None if owner is None else owner.pk)
            except NotPermitted as error:
                raise ValidationError(str(error), code="not_permitted") from error
        return owner


_MEANWHILE = _("Somebody has changed this since the page was opened: load it again.")


class ChangedKeyForm(_KeyForm):
    """What is to change of a key; ``validated`` has that alone."""

    class Meta:
        model = APIKey
        fields = (
            "name",
            "description",
            "scopes",
            "allowed_ips",
            "rate_limit",
            "expires_at",
            "enabled",
            "metadata",
        )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # One without a name, of when none was needed, can be changed in all else.
        self.fields["name"].required = False
        self.fields["expires_at"].stored = self.instance.expires_at  # type: ignore[attr-defined]  # a MomentField
        self._show_every_scope()
        for field in self.fields.values():
            # Sent along, what the page showed tells a change from what somebody else
            # has changed since, which must not be undone.
            field.show_hidden_initial = True

    @cached_property
    def changed_data(self) -> list[str]:
        """The fields that were changed on the page, and say something else than is stored."""
        return [name for name in super().changed_data if self._differs(name)]

    def _differs(self, name: str) -> bool:
        bound = self[name]
        return bound.field.has_changed(bound.initial, bound.data)

    def _show_every_scope(self) -> None:
        stored = self.instance.scopes if isinstance(self.instance.scopes, list) else []
        texts = [scope for scope in stored if isinstance(scope, str)]
        known = dict(scope_choices())
        unknown = [
            (
                scope,
                _("%(scope)s · no longer known; untick it to change the others")
                % {"scope": scope},
            )
            for scope in texts
            if scope not in known
        ]
        self.fields["scopes"].choices = [*known.items(), *unknown]  # type: ignore[attr-defined]  # a ScopesField
        self.initial["scopes"] = texts

    def _validated(self, cleaned: Mapping[str, Any]) -> dict[str, Any]:
        given = {name: cleaned[name] for name in self.changed_data if name in cleaned}
        if "scopes" in given:
            given["scopes"] = self._merged(given["scopes"])
        problems = {name: _MEANWHILE for name in given if self._was_changed_by_others(name)}
        if problems:
            raise InvalidInput(problems)
        return validation.clean(given, environment=self.instance.environment)

    def _shown(self, name: str) -> Any:
        """Return what the page showed of a field; None where that was not sent along."""
        widget = self.fields[name].hidden_widget()
        return self._widget_data_value(widget, self[name].html_initial_name)  # type: ignore[attr-defined]  # of Django's forms

    def _was_changed_by_others(self, name: str) -> bool:
        # Each scope that was ticked or unticked is merged into what there is now.
        shown = None if name == "scopes" else self._shown(name)
        bound = self[name]
        return shown is not None and bound.field.has_changed(bound.initial, shown)

    def _merged(self, ticked: Sequence[str]) -> list[str]:
        """Return the scopes of the key as they are now, with those that were ticked since."""
        shown = self._shown("scopes")
        if shown is None:
            return list(ticked)
        before, stored = set(shown.split()), self.initial["scopes"]
        removed = before - set(ticked)
        kept = [scope for scope in stored if scope not in removed]
        return [*kept, *(one for one in ticked if one not in before and one not in kept)]


class RotationForm(forms.Form):
    """What is asked of a rotation; ``validated`` has it as ``services`` takes it."""

    # The public id that the page showed: the same form sent twice, or by two people, makes
    # one new secret.
    current = forms.CharField(required=False, widget=forms.HiddenInput)
    compromised = forms.TypedChoiceField(
        label=_("Why"),
        coerce="yes".__eq__,
        choices=(("no", _("It is planned")), ("yes", _("This secret has leaked"))),
        initial="no",
        widget=forms.RadioSelect(attrs={"class": "radiolist"}),
        help_text=_("Where it has leaked, every earlier secret ends at once, without a grace."),
    )
    grace_seconds = forms.TypedChoiceField(
        label=_("The secret before lives on"),
        coerce=int,
        choices=(
            (0, _("not at all")),
            (60 * 60, _("1 hour")),
            (24 * 60 * 60, _("1 day")),
            (7 * 24 * 60 * 60, _("7 days")),
            (30 * 24 * 60 * 60, _("30 days")),
        ),
        initial=validation.GRACE_SECONDS,
    )
    starts = forms.ChoiceField(
        label=_("Counted from"),
        choices=(("now", _("now")), ("first_use", _("when the new secret is first used"))),
        initial="now",
        widget=forms.RadioSelect(attrs={"class": "radiolist"}),
        help_text=_("Until the new secret is first used, the one before does not end."),
    )
    reason = forms.CharField(
        label=_("Reason"), required=False, widget=forms.TextInput(attrs={"size": "80"})
    )

    def __init__(self, *args: Any, key: APIKey, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._public_id = key.current_secret.public_id if key.current_secret else ""
        self.fields["current"].initial = self._public_id

    def clean_reason(self) -> str:
        return validation.clean_reason(self.cleaned_data["reason"])

    def clean(self) -> dict[str, Any]:
        cleaned = self.cleaned_data
        if cleaned.get("current") != self._public_id:
            self.add_error(
                None, _("The secret of this key is another by now: look at the key again.")
            )
        # What the fields say that nobody touched is no grace for a secret that has leaked.
        left_out = ("grace_seconds", "starts") if cleaned.get("compromised") else ()
        self.validated: dict[str, Any] = {
            name: value for name, value in cleaned.items() if name not in ("current", *left_out)
        }
        return cleaned
