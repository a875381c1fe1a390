"""The settings of a key as a form."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from django_apikeys import validation
from django_apikeys.conf import conf
from django_apikeys.exceptions import BeyondCeiling, InvalidInput, NotPermitted
from django_apikeys.keys.scopes import is_reserved
from django_apikeys.models import APIKey

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from django.utils.functional import _StrPromise

    from django_apikeys.authority import Authority


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


class ScopesField(forms.MultipleChoiceField):
    """Any number of the registered scopes, and of the wildcards over them."""

    widget = forms.CheckboxSelectMultiple

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(choices=scope_choices, required=False, **kwargs)


def scope_choices() -> Sequence[tuple[str, str | _StrPromise]]:
    """Return every scope that a key can have, with its description."""
    registry = conf.SCOPES
    choices: list[tuple[str, str | _StrPromise]] = [
        (scope, f"{scope} · {text}" if text else scope) for scope, text in registry.items()
    ]
    resources = dict.fromkeys(scope.partition(":")[0] for scope in registry)
    choices += [(f"{name}:*", f"{name}:*") for name in resources if not is_reserved(name)]
    return [*choices, ("*", _("* · everything but API keys themselves"))]


class NewKeyForm(forms.ModelForm):  # type: ignore[type-arg]  # generic for the checker alone
    """What a new key is to be; ``validated`` has it as ``services.create_key`` takes it."""

    # Of the key to be: the same form sent twice, by a reload say, makes one key.
    new_id = forms.UUIDField(required=False, widget=forms.HiddenInput, initial=uuid.uuid4)
    description = forms.CharField(
        label=_("Description"), required=False, widget=forms.Textarea(attrs={"rows": 3})
    )
    environment = forms.ChoiceField(
        label=_("Environment"), choices=lambda: [(name, name) for name in conf.ENVIRONMENTS]
    )
    scopes = ScopesField(label=_("Scopes"))
    allowed_ips = LinesField(
        label=_("Allowed addresses"),
        required=False,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text=_("IP addresses and networks, one on a line. Empty: all."),
    )
    expires_at = forms.DateTimeField(
        label=_("Expires at"),
        required=False,
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}),
        help_text=_("Empty: never."),
    )
    metadata = MetadataField(
        label=_("Metadata"), required=False, initial=dict, widget=forms.Textarea(attrs={"rows": 3})
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

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        given = {name: cleaned[name] for name in validation.CLEANERS if name in cleaned}
        try:
            self.validated = validation.clean(given)
        except InvalidInput as error:
            for name, messages in error.error_dict.items():
                self.add_error(name, messages)
        if self.authority is not None and "owner" in cleaned:
            self._ask(self.authority, cleaned["owner"], cleaned.get("scopes", ()))
        return cleaned

    def _ask(self, authority: Authority, owner: Any, scopes: Collection[str]) -> None:
        try:
            authority.require("create", None if owner is None else owner.pk)
        except NotPermitted as error:
            self.add_error("owner", str(error))
            return
        after = APIKey(owner=owner, scopes=list(scopes), environment=conf.ENVIRONMENTS[0])
        try:
            authority.check("create", None, after)
        except BeyondCeiling as error:
            self.add_error("scopes", str(error))
