"""The authentication class: a key, and no other credential, becomes ``request.auth``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rest_framework.authentication import BaseAuthentication

from django_apikeys.answers import Answer
from django_apikeys.caching import never_store
from django_apikeys.declarations import declared_scopes
from django_apikeys.drf.exceptions import as_api_exception
from django_apikeys.exceptions import NotAuthenticated, Refused
from django_apikeys.users import request_user
from django_apikeys.verification import verify

if TYPE_CHECKING:
    from django.http.response import HttpResponseBase
    from rest_framework.request import Request
    from rest_framework.views import APIView

    from django_apikeys.keys.grants import Grant


class APIKeyAuthentication(BaseAuthentication):
    """Lets keys into views that say what a key needs, and refuses them elsewhere.

    It stands first in ``DEFAULT_AUTHENTICATION_CLASSES``: a key decides alone, and one
    that is refused never falls back to a session.
    """

    def authenticate(self, request: Request) -> tuple[Any, Grant] | None:
        view = (request.parser_context or {}).get("view")
        answer = Answer(request._request)
        if view is not None:
            _follow(answer, view)
        try:
            grant = verify(
                request._request,
                required_scopes=declared_scopes(view, request.method or ""),
            )
        except NotAuthenticated:
            return None
        except Refused as refused:
            answer.refused = refused
            raise as_api_exception(refused) from refused
        answer.to_a_key = True
        never_store(request._request)
        never_store(request)
        return request_user(grant), grant

    def authenticate_header(self, request: Request) -> str:
        return str(NotAuthenticated.challenge)


def _follow(answer: Answer, view: APIView) -> None:
    """Set the headers when *view* has answered.

    Not by a middleware: ``cache_page`` around the view looks at the answer before any
    middleware does.
    """
    finalize = view.finalize_response

    def finalize_response(*args: Any, **kwargs: Any) -> HttpResponseBase:
        response = finalize(*args, **kwargs)
        answer.patch(response, is_error=getattr(response, "exception", False))
        return response

    view.finalize_response = finalize_response  # type: ignore[assignment, method-assign]  # of this one view
