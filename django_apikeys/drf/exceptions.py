"""Our errors as DRF's, and an exception handler with one shape for all of them."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from django.core.exceptions import PermissionDenied
from django.http import Http404
from django.utils.encoding import force_str
from rest_framework import exceptions
from rest_framework.exceptions import APIException, ErrorDetail

from django_apikeys.exceptions import ChangeRefused, InvalidInput, Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rest_framework.response import Response


class RefusedRequest(APIException):
    """A refusal with its own status and challenge.

    It is not one of DRF's authentication errors on purpose: those are turned into 403
    where the first authentication class of the view has no challenge of its own.
    """

    def __init__(self, error: Refused | ChangeRefused) -> None:
        self.status_code = error.status
        self.detail = {
            "detail": ErrorDetail(force_str(error.message), error.code),
            "code": ErrorDetail(error.code, error.code),
        }
        if isinstance(error, Refused):
            self.auth_header = error.challenge
            self.wait = error.retry_after


def as_api_exception(error: Refused | ChangeRefused) -> APIException:
    """Return *error* as the exception that DRF answers."""
    if isinstance(error, InvalidInput):
        return exceptions.ValidationError(error.message_dict)
    return RefusedRequest(error)


def exception_handler(exc: Exception, context: Mapping[str, Any]) -> Response | None:
    """Return the answer to *exc*: ``{"error": {"code", "reason", "message"}}``.

    ``code`` is the name of the status, ``reason`` the stable code of the error;
    validation errors have ``fields`` too. None where *exc* is no error of an API.
    For ``EXCEPTION_HANDLER`` in REST_FRAMEWORK.
    """
    # Late: rest_framework.views loads the authentication classes of the settings, and
    # those need this module.
    from rest_framework.views import exception_handler as default_handler  # noqa: PLC0415 - as said

    response = default_handler(exc, context)  # type: ignore[arg-type]  # a dict, always
    if response is None:
        return None
    if isinstance(exc, Http404):
        exc = exceptions.NotFound(*exc.args)
    elif isinstance(exc, PermissionDenied):
        exc = exceptions.PermissionDenied(*exc.args)
    error: dict[str, Any] = {
        "code": name_of_status(response.status_code),
        "reason": _reason(exc),
        "message": _message(exc),
    }
    if isinstance(exc, exceptions.ValidationError):
        error["fields"] = _fields(exc.detail)
    response.data = {"error": error}
    return response


# As RFC 9110 has them; Python named them otherwise before 3.13.
_NAMES = {413: "CONTENT_TOO_LARGE", 414: "URI_TOO_LONG", 422: "UNPROCESSABLE_CONTENT"}


def name_of_status(status: int) -> str:
    """Return the name of *status*: ``NOT_FOUND``."""
    if status in _NAMES:
        return _NAMES[status]
    try:
        return HTTPStatus(status).name
    except ValueError:  # one of the host's own
        return "ERROR"


def _reason(exc: Exception) -> str:
    detail = getattr(exc, "detail", None)
    if isinstance(exc, exceptions.ValidationError):
        return str(exc.default_code)
    if isinstance(detail, dict) and "code" in detail:
        return str(detail["code"])
    codes = exc.get_codes() if isinstance(exc, APIException) else None
    return codes if isinstance(codes, str) else str(getattr(exc, "default_code", "error"))


def _message(exc: Exception) -> str:
    if isinstance(exc, exceptions.ValidationError):
        return force_str(exc.default_detail)
    detail = getattr(exc, "detail", exc)
    if isinstance(detail, dict) and "detail" in detail:
        detail = detail["detail"]
    return force_str(detail)


def _fields(detail: Any) -> dict[str, Any]:
    return detail if isinstance(detail, dict) else {"non_field_errors": detail}
