"""What each operation asks of a key, and how it is answered."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ResolvedComponent, whitelisted
from drf_spectacular.settings import spectacular_settings

from django_apikeys.contrib.drf_spectacular import answers
from django_apikeys.declarations import declared_scopes
from django_apikeys.drf.authentication import APIKeyAuthentication
from django_apikeys.drf.pagination import Envelope
from django_apikeys.drf.renderers import EnvelopeJSONRenderer
from django_apikeys.drf.throttling import APIKeyThrottle

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    Operation = dict[str, Any]


def _completed(
    get_operation: Callable[..., Operation | None],
) -> Callable[..., Operation | None]:
    @functools.wraps(get_operation)
    def completed(self: AutoSchema, *args: Any, **kwargs: Any) -> Operation | None:
        operation = get_operation(self, *args, **kwargs)
        if operation is not None:
            _put_in_envelopes(self, operation["responses"])
            if _lets_keys_in(self):
                _tell_of_keys(self, operation)
        return operation

    return completed


# drf-spectacular calls no extension that sees the text of an operation, and a hook would be
# for each project to list. Every AutoSchema of a project is a subclass, and asks this one.
AutoSchema.get_operation = _completed(AutoSchema.get_operation)  # type: ignore[method-assign]  # as said


def _lets_keys_in(schema: AutoSchema) -> bool:
    # What a project has left out of its schema is not told of.
    allowed = spectacular_settings.AUTHENTICATION_WHITELIST
    return any(
        isinstance(authenticator, APIKeyAuthentication)
        and whitelisted(authenticator, allowed, True)
        for authenticator in schema.view.get_authenticators()
    )


def _tell_of_keys(schema: AutoSchema, operation: Operation) -> None:
    scopes = declared_scopes(schema.view, schema.method)
    texts = [str(operation.get("description") or ""), _in_words(scopes)]
    operation["description"] = "\n\n".join(filter(None, texts))
    responses = operation["responses"]
    # What is said of an answer already is left alone.
    for status, answer in getattr(schema.view, "more_answers", _nothing)(schema):
        responses.setdefault(status, answer)
    responses.setdefault("401", answers.unauthenticated(schema))
    responses.setdefault("403", answers.forbidden(schema, scopes))
    is_limited = any(
        isinstance(throttle, APIKeyThrottle) for throttle in schema.view.get_throttles()
    )
    if is_limited and scopes is not None:
        responses.setdefault("429", answers.limited(schema))
        for status, response in responses.items():
            if status.startswith("2"):
                headers = answers.headers_of(schema, answers.RATE_HEADERS)
                response["headers"] = {**headers, **response.get("headers", {})}
    operation["responses"] = dict(sorted(responses.items()))


def _nothing(schema: AutoSchema) -> tuple[()]:
    return ()


def _in_words(scopes: Collection[str] | None) -> str:
    if scopes is None:
        return "API keys are refused here."
    if not scopes:
        return "An API key needs no scope."
    return f"Scopes of an API key: {answers.quoted(sorted(scopes))}."


def _put_in_envelopes(schema: AutoSchema, responses: dict[str, Any]) -> None:
    """Describe the bodies as EnvelopeJSONRenderer renders them, where it does."""
    renderers: dict[str, Any] = {}
    for renderer in schema.view.get_renderers():
        renderers.setdefault(_without_parameters(renderer.media_type), renderer)
    for status, response in responses.items():
        for media_type, content in response.get("content", {}).items():
            made_by = renderers.get(_without_parameters(media_type))
            if status.startswith("2") and isinstance(made_by, EnvelopeJSONRenderer):
                _put_in_envelope(schema, content)


def _without_parameters(media_type: str) -> str:
    # A charset, or the version that AcceptHeaderVersioning reads.
    return media_type.partition(";")[0]


def _put_in_envelope(schema: AutoSchema, content: dict[str, Any]) -> None:
    body = content.get("schema", {})
    name = body.get("$ref", "").rpartition("/")[2]
    # A page, or what a project describes so itself.
    if {*_named(schema, name, body).get("properties", ())} in ({"data"}, {"data", "meta"}):
        return
    envelope = {"type": "object", "required": ["data"], "properties": {"data": body}}
    if name:
        component = ResolvedComponent(
            f"{name}Envelope", ResolvedComponent.SCHEMA, schema=envelope, object=Envelope
        )
        schema.registry.register_on_missing(component)
        envelope = component.ref
    content["schema"] = envelope
    for example in content.get("examples", {}).values():
        if "value" in example:
            example["value"] = {"data": example["value"]}


def _named(schema: AutoSchema, name: str, body: dict[str, Any]) -> dict[str, Any]:
    try:
        return schema.registry[name, ResolvedComponent.SCHEMA].schema or {}
    except KeyError:  # it has no name, or is one of APPEND_COMPONENTS
        return body
