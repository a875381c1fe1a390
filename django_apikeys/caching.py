"""The headers that keep one key's answer, or its secret, from everybody else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.utils.cache import patch_cache_control, patch_vary_headers

if TYPE_CHECKING:
    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

VARY = ("Authorization", "X-API-Key")


def patch_guarded(response: HttpResponseBase, *, to_a_key: bool, refused: bool) -> None:
    """Set ``Vary`` and ``Cache-Control`` on the answer of a guarded view.

    A refusal is stored nowhere; an answer to a key by nobody but its client, unless
    the view was stricter.
    """
    patch_vary_headers(response, VARY)
    if refused:
        response["Cache-Control"] = "no-store"
    elif to_a_key and "no-store" not in response.get("Cache-Control", "").lower():
        patch_cache_control(response, private=True)


def patch_secret(response: HttpResponseBase) -> None:
    """Keep a page that shows a secret out of caches and frames, and its address to this site."""
    response["Cache-Control"] = "no-store"
    # Nothing to other sites. With no-referrer a browser says "Origin: null" even to this one,
    # and Django refuses each form of the page: that of a log-out in its header, say.
    response["Referrer-Policy"] = "same-origin"
    response["X-Frame-Options"] = "DENY"


def never_store(request: HttpRequest) -> None:
    """Keep Django's cache middleware from storing the answer to *request*.

    ``Cache-Control: private`` says the same, but a decorator around the view may take
    it off again.
    """
    request._cache_update_cache = False  # type: ignore[attr-defined]  # the middleware sets it
