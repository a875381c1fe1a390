"""Errors outside of any view: in the API's envelope under /api/, Django's page elsewhere."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from django.http import Http404, HttpResponsePermanentRedirect, JsonResponse
from django.urls import resolve
from django.views import defaults
from django.views.decorators.csrf import csrf_exempt

if TYPE_CHECKING:
    from django.http import HttpRequest
    from django.http.response import HttpResponseBase


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    if _is_api(request):
        return _envelope(400, "bad_request", "This request cannot be understood.")
    return defaults.bad_request(request, exception)


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    if _is_api(request):
        return _envelope(403, "permission_denied", "You may not do this.")
    return defaults.permission_denied(request, exception)


@csrf_exempt  # there is nothing here to protect, and a program has no token
def not_found(
    request: HttpRequest, exception: Exception | None = None, **kwargs: Any
) -> HttpResponseBase:
    if not _is_api(request):
        return defaults.page_not_found(request, exception or Http404())
    with_slash = f"{request.path_info}/"
    if request.path_info.endswith("/") or resolve(with_slash).func is not_found:
        return _envelope(404, "not_found", "There is nothing at this address.")
    if request.method in ("GET", "HEAD"):
        return HttpResponsePermanentRedirect(request.get_full_path(force_append_slash=True))
    # Not a redirect, which clients follow by GET: a revoke would seem to be done.
    return _envelope(404, "not_found", f"A slash is missing at the end: {with_slash}")


def server_error(request: HttpRequest) -> HttpResponseBase:
    if _is_api(request):
        return _envelope(500, "server_error", "Something went wrong here.")
    return defaults.server_error(request)


def _is_api(request: HttpRequest) -> bool:
    return request.path_info.startswith("/api/")


def _envelope(status: int, reason: str, message: str) -> JsonResponse:
    error = {"code": HTTPStatus(status).name, "reason": reason, "message": message}
    return JsonResponse({"error": error}, status=status)
