"""The authentication class: a key, and no other credential, becomes ``request.auth``."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from rest_framework.authentication import BaseAuthentication

from django_apikeys.caching import never_store, patch_guarded
from django_apikeys.drf.exceptions import as_api_exception
from django_apikeys.drf.scopes import declared_scopes
from django_apikeys.exceptions import NotAuthenticated, Refused
from django_apikeys.headers import patch_end
from django_apikeys.limits import asked_of, patch_headers
from django_apikeys.users import request_user
from django_apikeys.verification import verify

if TYPE_CHECKING:
    from django.http import HttpRequest
    from django.http.response import HttpResponseBase
    from rest_framework.request import Request
    from rest_framework.views import APIView

    from django_apikeys.keys.grants import Grant

# Statuses by which a guarded view refuses; what the view itself finds wrong with the
# input is no refusal of a key.
_REFUSALS = frozenset((401, 403, 429, 503))


class APIKeyAuthentication(BaseAuthentication):
    """Lets keys into views that say what a key needs, and refuses them elsewhere.

    It stands first in ``DEFAULT_AUTHENTICATION_CLASSES``: a key decides alone, and one
    that is refused never falls back to a session.
    """

    def authenticate(self, request: Request) -> tuple[Any, Grant] | None:
        view = (request.parser_context or {}).get("view")
        answer = _Answer(request._request)
        if view is not None:
            answer.follow(view)
        try:
            grant = verify(
                request._request,
                required_scopes=declared_scopes(view, request.method or ""),
            )
        except NotAuthenticated:
            return None
        except Refused as refused:
            answer.refused = True
            raise as_api_exception(refused) from refused
        answer.to_a_key = True
        never_store(request._request)
        request.__class__ = _never_stored(type(request))  # type: ignore[arg-type]  # DRF's stubs call a class unhashable
        return request_user(grant), grant

    def authenticate_header(self, request: Request) -> str:
        return str(NotAuthenticated.challenge)


class _Answer:
    """The headers of the answer, set when the view has made it.

    Not by a middleware: ``cache_page`` around the view looks at the answer before any
    middleware does.
    """

    def __init__(self, request: HttpRequest) -> None:
        self.request = request
        self.refused = False
        self.to_a_key = False

    def follow(self, view: APIView) -> None:
        finalize = view.finalize_response

        def finalize_response(*args: Any, **kwargs: Any) -> HttpResponseBase:
            response = finalize(*args, **kwargs)
            refused = self.refused or (
                getattr(response, "exception", False) and response.status_code in _REFUSALS
            )
            patch_guarded(response, to_a_key=self.to_a_key, refused=refused)
            patch_headers(response, asked_of(self.request))
            patch_end(response, self.request)
            return response

        view.finalize_response = finalize_response  # type: ignore[assignment, method-assign]  # of this one view


@lru_cache(maxsize=32)
def _never_stored(request_class: type[Request]) -> type[Request]:
    """Return *request_class*, made so that Django's cache stores no answer to it.

    ``cache_page`` around a method of the view (``@method_decorator(cache_page(60))``
    on ``list``) is handed DRF's request, and stores before the headers are set.
    """

    class NeverStored(request_class):  # type: ignore[misc, valid-type]  # a class made at run time
        @property
        def _cache_update_cache(self) -> bool:
            return False

        @_cache_update_cache.setter
        def _cache_update_cache(self, value: bool) -> None:
            """Django's cache asks for it in vain."""

    NeverStored.__name__ = request_class.__name__
    NeverStored.__qualname__ = request_class.__qualname__
    return NeverStored
