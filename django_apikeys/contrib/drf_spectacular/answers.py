"""The answers of refusals: their bodies, as the project tells errors, and their headers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from drf_spectacular.plumbing import ResolvedComponent
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.views import exception_handler as default_handler

from django_apikeys.drf.exceptions import exception_handler, name_of_status
from django_apikeys.exceptions import (
    INVALID_KEY_MESSAGE,
    AddressNotAllowed,
    InsufficientScope,
    NotAuthenticated,
    QuotaExceeded,
    RateLimited,
    Unavailable,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from drf_spectacular.openapi import AutoSchema

    Headers = dict[str, dict[str, Any]]
    # Of one error: its code and its message.
    Told = Sequence[tuple[str, str]]

_HEADERS: Headers = {
    "WWW-Authenticate": {
        "description": "The challenge, after RFC 6750.",
        "schema": {"type": "string"},
        "example": 'Bearer realm="api"',
    },
    "Retry-After": {
        "description": "Seconds until it is worth trying again.",
        "schema": {"type": "integer", "minimum": 1},
        "example": 42,
    },
    "RateLimit": {
        "description": "What is left of each limit, and the seconds until it begins anew.",
        "schema": {"type": "string"},
        "example": '"key";r=59;t=42, "quota";r=99940;t=86400',
    },
    "RateLimit-Policy": {
        "description": "The limits: of the key, of its owner's plan and of the month.",
        "schema": {"type": "string"},
        "example": '"key";q=60;w=60, "quota";q=100000',
    },
}
RATE_HEADERS = ("RateLimit", "RateLimit-Policy")
_ENVELOPE: dict[str, Any] = {
    "type": "object",
    "description": "Why a request was not answered as it asked for.",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "reason", "message"],
            "properties": {
                "code": {"type": "string", "description": "The name of the status."},
                "reason": {"type": "string", "description": "The stable code of the error."},
                "message": {
                    "type": "string",
                    "description": "For people, in the language that the request asks for.",
                },
                "fields": {
                    "type": "object",
                    "description": "What is wrong with each bad field of the input.",
                    "additionalProperties": {},
                },
            },
        }
    },
}
_DETAIL: dict[str, Any] = {
    "type": "object",
    "description": "Why a request was not answered as it asked for.",
    "required": ["detail"],
    "properties": {
        "detail": {
            "type": "string",
            "description": "For people, in the language that the request asks for.",
        },
        "code": {
            "type": "string",
            "description": "The stable code of the error; not there in REST framework's own.",
        },
    },
}
_FIELDS: dict[str, Any] = {
    "type": "object",
    "description": "What is wrong with each bad field of the input.",
    "additionalProperties": {},
}
# Of REST framework's own errors, whose bodies have no code under its own handler.
_WITHOUT_CODE = (NotAuthenticated.code, NotFound.default_code)


def unauthenticated(schema: AutoSchema) -> dict[str, Any]:
    """Return the answer to who sends no key, or a bad one."""
    told = [
        (NotAuthenticated.code, str(NotAuthenticated.message)),
        *((code, INVALID_KEY_MESSAGE) for code in ("invalid_key", "expired_key", "revoked_key")),
    ]
    text = "No credential was sent, or one that is not valid."
    return refusal(schema, 401, text, told, ("WWW-Authenticate",))


def forbidden(schema: AutoSchema, scopes: Iterable[str] | None, more: Told = ()) -> dict[str, Any]:
    """Return the answer to who may not do this: to a key without *scopes*, above all.

    scopes: None where keys are refused.
    """
    told = [(AddressNotAllowed.code, str(AddressNotAllowed.message)), *more]
    if scopes is None:
        text = "API keys are refused here, and others may lack a permission."
    elif scopes := sorted(scopes):
        text = f"The API key lacks a scope, of {quoted(scopes)}, or a permission is missing."
    else:
        text = "A permission is missing."
    headers: tuple[str, ...] = ()
    if scopes is None or scopes:
        told.insert(0, (InsufficientScope.code, str(InsufficientScope(scopes).message)))
        headers = ("WWW-Authenticate",)
    return refusal(schema, 403, text, told, headers)


def limited(schema: AutoSchema) -> dict[str, Any]:
    """Return the answer to a key whose limits are spent."""
    told = [(error.code, str(error.message)) for error in (RateLimited, QuotaExceeded)]
    text = "A limit of the API key, of its owner's plan or of the month is spent."
    return refusal(schema, 429, text, told, ("Retry-After", *RATE_HEADERS))


def unavailable(schema: AutoSchema) -> dict[str, Any]:
    """Return the answer while nobody can know."""
    told = [(Unavailable.code, str(Unavailable.message))]
    return refusal(schema, 503, "The database does not answer.", told, ("Retry-After",))


def not_found(schema: AutoSchema) -> dict[str, Any]:
    """Return the answer where there is nothing that the caller may see."""
    told = [(NotFound.default_code, str(NotFound.default_detail))]
    return refusal(schema, 404, "There is none, or it is another owner's.", told)


def conflict(schema: AutoSchema, text: str, message: str) -> dict[str, Any]:
    """Return the answer where the state of a key does not allow it."""
    return refusal(schema, 409, text, [("conflict", message)])


def invalid(schema: AutoSchema, fields: dict[str, list[str]]) -> dict[str, Any]:
    """Return the answer to bad input, where *fields* are wrong."""
    text = "The input is bad: every bad field is named."
    told = [(ValidationError.default_code, str(ValidationError.default_detail))]
    return refusal(schema, 400, text, told, fields=fields)


def refusal(  # noqa: PLR0913 - what an answer has
    schema: AutoSchema,
    status: int,
    text: str,
    told: Told,
    headers: Iterable[str] = (),
    *,
    fields: dict[str, list[str]] | None = None,
) -> dict[str, Any]:
    """Return an answer of *status* whose body is as the view's exception handler makes it.

    told: each with an example. Nothing is said of the body that a handler of the
    project's own makes.
    """
    answer: dict[str, Any] = {"description": text}
    if described := headers_of(schema, headers):
        answer["headers"] = described
    handler = schema.view.get_exception_handler()
    if handler is exception_handler:
        body = _component(schema, "ErrorEnvelope", _ENVELOPE)
        examples = {code: _enveloped(status, code, message, fields) for code, message in told}
    elif handler is default_handler:
        name, shape = ("Refusal", _DETAIL) if fields is None else ("InvalidInput", _FIELDS)
        body = _component(schema, name, shape)
        examples = {code: fields or _bare(code, message) for code, message in told}
    else:
        return answer
    values = {code: {"value": value} for code, value in examples.items()}
    answer["content"] = {"application/json": {"schema": body, "examples": values}}
    return answer


def _enveloped(
    status: int, code: str, message: str, fields: dict[str, list[str]] | None
) -> dict[str, Any]:
    error = {"code": name_of_status(status), "reason": code, "message": message}
    return {"error": error if fields is None else {**error, "fields": fields}}


def _bare(code: str, message: str) -> dict[str, Any]:
    return {"detail": message, **({} if code in _WITHOUT_CODE else {"code": code})}


def headers_of(schema: AutoSchema, names: Iterable[str]) -> Headers:
    """Return the headers of these *names*, each described once for all answers."""
    found = {}
    for name in names:
        component = ResolvedComponent(
            name, ResolvedComponent.HEADER, schema=_HEADERS[name], object=name
        )
        schema.registry.register_on_missing(component)
        found[name] = component.ref
    return found


def quoted(scopes: Iterable[str]) -> str:
    """Return *scopes* as Markdown."""
    return ", ".join(f"`{scope}`" for scope in scopes)


def _component(schema: AutoSchema, name: str, body: dict[str, Any]) -> dict[str, Any]:
    component = ResolvedComponent(name, ResolvedComponent.SCHEMA, schema=body, object=name)
    schema.registry.register_on_missing(component)
    return component.ref
