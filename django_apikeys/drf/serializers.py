"""What may be sent to the management API."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from django.utils.translation import gettext_lazy as _
from rest_framework import serializers
from rest_framework.fields import empty

from django_apikeys import validation
from django_apikeys.conf import conf
from django_apikeys.keys.masking import MaskedText, Secret

if TYPE_CHECKING:
    from collections.abc import Callable

    from rest_framework.request import Request

# What a body says of the owner that does not name one; null is the project itself.
UNSAID = object()
_FORM_TOKEN = "csrfmiddlewaretoken"  # noqa: S105 - the name of Django's form field
# A hasher takes neither lone surrogates nor, in good time, texts without an end.
_NO_PASSWORD = re.compile(r"[\ud800-\udfff]|.{4097}", re.DOTALL)


def _rules(cleaner: Callable[[object], Any]) -> list[Any]:
    # A cleaner is a validator whose result DRF leaves aside: the services clean again.
    return [cleaner]


class StrictSerializer(serializers.Serializer[Any]):
    """A body in which every field must be known: ``allowed_ip`` must not make an open key."""

    not_settable: tuple[str, ...] = ()

    def to_internal_value(self, data: Any) -> Any:
        errors: dict[str, Any] = {}
        if isinstance(data, Mapping):
            errors = {
                _printable(name): [_("This field cannot be set.")]
                if name in self.not_settable
                else [_("Unknown field.")]
                for name in data
                if name not in self.fields and name != _FORM_TOKEN
            }
        try:
            value = super().to_internal_value(data)
        except serializers.ValidationError as error:
            # A dict, always: of fields, or of non_field_errors.
            errors = {**cast("dict[str, Any]", error.detail), **errors}
            raise serializers.ValidationError(errors) from error
        if errors:
            raise serializers.ValidationError(errors)
        return value


def _printable(name: object) -> str:
    # JSON may hold lone surrogates, which no answer can be written with.
    return str(name).encode(errors="backslashreplace").decode()


class _Text(serializers.CharField):
    # DRF's takes numbers too, and 1e400 for the text "inf".
    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class _Identifier(serializers.Field[Any, Any, Any, Any]):
    def to_internal_value(self, data: Any) -> Any:
        return data


class _Switch(serializers.BooleanField):
    # A form that leaves it out says nothing; DRF takes that for False.
    default_empty_html = empty


class KeyInput(StrictSerializer):
    """The settings of a key. With ``partial=True`` those that are to change.

    Its context has the ``environment`` of a key for which the body names none.
    """

    not_settable: tuple[str, ...] = (
        "id",
        "masked",
        "public_id",
        "secret",
        "status",
        "usage_count",
        "error_count",
        "last_used_at",
        "last_used_ip",
        "created_at",
        "created_by",
        "updated_at",
        "revoked_at",
        "revoked_by",
        "revoked_reason",
        "previous_secret",
        "rotation_due_at",
    )

    name = _Text(validators=_rules(validation.clean_name))
    description = _Text(
        required=False, allow_blank=True, validators=_rules(validation.clean_description)
    )
    scopes = serializers.ListField(
        required=False, child=_Text(), validators=_rules(validation.clean_scopes)
    )
    allowed_ips = serializers.ListField(
        required=False,
        child=_Text(),
        validators=_rules(validation.clean_allowed_ips),
    )
    rate_limit = _Text(
        required=False,
        allow_null=True,
        allow_blank=True,
        validators=_rules(validation.clean_rate_limit),
    )
    expires_at = serializers.DateTimeField(
        required=False, allow_null=True, validators=_rules(validation.clean_expires_at)
    )
    enabled = _Switch(required=False)
    metadata = serializers.JSONField(required=False, validators=_rules(validation.clean_metadata))

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        fields = super().get_fields()
        fields["name"].required = conf.REQUIRE_NAME
        cast("_Text", fields["name"]).allow_blank = not conf.REQUIRE_NAME
        return fields

    def validate_expires_at(self, value: Any) -> Any:
        # Here, so that it is named together with whatever else is wrong.
        environment = self.initial_data.get("environment", self.context["environment"])
        validation.check_lifetime(environment, value)
        return value


class NewKeyInput(KeyInput):
    """The settings of a key that is to be made; the view finds its ``owner``."""

    environment = _Text(required=False, validators=_rules(validation.clean_environment))
    # A function: DRF copies the defaults of fields, and the copy of an object is another.
    owner = _Identifier(default=cast("Any", lambda: UNSAID), allow_null=True)

    def validate_owner(self, value: Any) -> Any:
        return self.context["view"].find_owner(value)


class ChangedKeyInput(KeyInput):
    """The settings of a key that are to change."""

    not_settable = (*KeyInput.not_settable, "environment", "owner")


class RotateInput(StrictSerializer):
    """How the secret of a key is replaced; ``services`` checks what goes with what."""

    grace_seconds = serializers.IntegerField(
        required=False, validators=_rules(validation.clean_grace_seconds)
    )
    starts = _Text(required=False, validators=_rules(validation.clean_starts))
    compromised = _Switch(required=False)
    current = _Text(required=False, allow_null=True, validators=_rules(validation.clean_current))
    reason = _Text(required=False, allow_blank=True, validators=_rules(validation.clean_reason))


class ReasonInput(StrictSerializer):
    """Why something is done."""

    reason = _Text(required=False, allow_blank=True, validators=_rules(validation.clean_reason))


class RevokeInput(ReasonInput):
    """Why a key is revoked, and whether those made through it are too."""

    cascade = _Switch(required=False)


class _Password(serializers.Field[Any, Any, Any, Any]):
    # Not DRF's own, which makes a plain text of what is masked, and strips it.
    default_error_messages = {"invalid": _("Not a valid password.")}

    def to_internal_value(self, data: Any) -> Secret:
        if not isinstance(data, str) or _NO_PASSWORD.search(data):
            self.fail("invalid")
        return Secret(data)


class RevealInput(StrictSerializer):
    """The password of whoever asks for a secret again; of a body that is ``masked_data``."""

    password = _Password(required=False, write_only=True, style={"input_type": "password"})


def masked_data(request: Request) -> Any:
    """Return the body of *request*, whose texts no frame and no error page shows.

    What is neither an object nor the text of a field has nothing to say, and is emptied.
    """
    if not isinstance(request.data, Mapping):
        return _emptied(request.data)
    return {
        name: MaskedText(value) if isinstance(value, str) else _emptied(value)
        for name, value in request.data.items()
    }


def _emptied(value: Any) -> Any:
    # Of the same type, which the error names.
    return type(value)()
