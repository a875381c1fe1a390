"""The headers that keep one key's answer, or its secret, from everybody else."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.utils.cache import patch_cache_control, patch_vary_headers

if TYPE_CHECKING:
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


def never_store(request: Any) -> None:
    """Keep Django's cache from storing the answer to *request*, Django's or DRF's.

    ``Cache-Control: private`` says the same, but a decorator around the view may take
    it off again, and one within the view stores before the headers are set.
    """
    request.__class__ = _never_stored(type(request))  # type: ignore[arg-type]  # the stubs call a class unhashable


class _NeverStored:
    @property
    def _cache_update_cache(self) -> bool:
        return False

    @_cache_update_cache.setter
    def _cache_update_cache(self, value: bool) -> None:
        """Django's cache asks for it in vain."""


@lru_cache(maxsize=32)
def _never_stored(request_class: type) -> type:
    """Return *request_class*, made so that Django's cache stores no answer to it."""
    if issubclass(request_class, _NeverStored):
        return request_class
    names = {"__module__": request_class.__module__, "__qualname__": request_class.__qualname__}
    return type(request_class.__name__, (_NeverStored, request_class), names)
