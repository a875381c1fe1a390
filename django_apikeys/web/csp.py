"""The strict Content-Security-Policy of the pages."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import django
from django.conf import settings
from django.shortcuts import resolve_url
from django.templatetags.static import static

if TYPE_CHECKING:
    from django.http import HttpRequest
    from django.http.response import HttpResponseBase


def strict() -> dict[str, list[str]]:
    """Return the policy by directive: files of the site, and of its statics, and nothing else."""
    # They may lie with another host; by static(), as templates name them.
    files = ["'self'", *_origin(static("django_apikeys/web.css"))]
    return {
        "default-src": ["'none'"],
        "style-src": files,
        "script-src": files,
        "img-src": files,
        "font-src": files,
        "connect-src": ["'self'"],
        # Browsers ask it of redirects too: of that to the login where a session has ended.
        "form-action": ["'self'", *_origin(resolve_url(settings.LOGIN_URL))],
        "base-uri": ["'none'"],
        "frame-ancestors": ["'none'"],
    }


def _origin(url: str) -> list[str]:
    parts = urlsplit(url)
    return [f"{parts.scheme or 'https'}://{parts.netloc}"] if parts.netloc else []


def _by_header(request: HttpRequest, response: HttpResponseBase) -> None:
    policy = strict().items()
    response["Content-Security-Policy"] = "; ".join(
        f"{directive} {' '.join(sources)}" for directive, sources in policy
    )


def _by_middleware(
    request: HttpRequest, response: HttpResponseBase
) -> None:  # pragma: no cover - what is measured has Django 5.2; the environments of 6 run it
    from django.middleware.csp import get_nonce  # noqa: PLC0415 - Django 5.2 has none
    from django.utils.csp import CSP  # noqa: PLC0415
    from django.views.decorators.csp import csp_override  # noqa: PLC0415

    if get_nonce(request) is None:
        # It is not installed.
        return _by_header(request, response)
    policy = strict()
    for directive in ("script-src", "style-src"):
        policy[directive] = [*policy[directive], CSP.NONCE]
    # It marks what a view has returned with the policy that the middleware is to send.
    csp_override(policy)(lambda _request: response)(request)
    return None


# Lets a response carry the strict policy. Where Django's own middleware does it, what the
# layout marks with its nonce is let in too.
send_strict = _by_middleware if django.VERSION >= (6, 0) else _by_header
