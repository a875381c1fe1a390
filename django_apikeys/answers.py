"""What a guarded view answers, whatever its framework: headers, and the body of a refusal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.http import JsonResponse
from django.utils.encoding import force_str

from django_apikeys.caching import patch_guarded
from django_apikeys.exceptions import NotAuthenticated
from django_apikeys.headers import patch_end
from django_apikeys.limits import asked_of, patch_headers

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse
    from django.http.response import HttpResponseBase

    from django_apikeys.exceptions import Refused

# Statuses by which a guarded view refuses; what the view itself finds wrong with the
# input is no refusal of a key.
_REFUSALS = frozenset((401, 403, 429, 503))
_FOLLOWED = "apikeys_answer"  # of the HttpRequest


class Answer:
    """The headers of the answer to *request*, set when there is one.

    refused: why the credential was not let in. to_a_key: one was.
    """

    def __init__(self, request: HttpRequest) -> None:
        self.request = request
        self.refused: Refused | None = None
        self.to_a_key = False
        self._patched: HttpResponseBase | None = None

    def patch(self, response: HttpResponseBase, *, is_error: bool) -> None:
        """Set the headers. is_error: the framework has made *response* of an exception."""
        refused = bool(self.refused) or (is_error and response.status_code in _REFUSALS)
        patch_guarded(response, to_a_key=self.to_a_key, refused=refused)
        patch_headers(response, asked_of(self.request))
        patch_end(response, self.request)
        self._patched = response

    def patch_other(self, response: HttpResponseBase) -> None:
        """Set the headers, unless *response* is the one that has them."""
        if response is not self._patched:
            self.patch(response, is_error=True)


def follow(request: HttpRequest) -> Answer:
    """Return the Answer to *request*, which the middleware sets where no view has."""
    answer = Answer(request)
    setattr(request, _FOLLOWED, answer)
    return answer


def followed(request: HttpRequest) -> Answer | None:
    """Return the Answer that ``follow`` made; None where nothing of ours guards the view."""
    return getattr(request, _FOLLOWED, None)


def refusal_response(refused: Refused) -> HttpResponse:
    """Return the answer to *refused*, as DRF's own exception handler has it."""
    body = {"detail": force_str(refused.message)}
    # DRF says it in its own words, without a code.
    if not isinstance(refused, NotAuthenticated):
        body["code"] = refused.code
    headers = {
        "WWW-Authenticate": refused.challenge,
        "Retry-After": None if refused.retry_after is None else str(refused.retry_after),
    }
    return JsonResponse(
        body,
        status=refused.status,
        headers={name: value for name, value in headers.items() if value is not None},
        json_dumps_params={"ensure_ascii": False, "separators": (",", ":")},
    )
