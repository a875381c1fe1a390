"""What an answer tells its client of the secret that was sent."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from django.utils.http import http_date

from django_apikeys.recording import noted

if TYPE_CHECKING:
    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

ROTATED = "X-API-Key-Rotated"
EXPIRES = "X-API-Key-Expires"
# The end is told of when it is so near; of a previous secret always.
SOON = timedelta(days=7)


def patch_end(response: HttpResponseBase, request: HttpRequest) -> None:
    """Say whether another secret has taken the place of that of *request*, and when it ends.

    Nothing to whom the key refuses for more than its scopes.
    """
    use = noted(request)
    grant = None if use is None else use.grant
    if use is None or grant is None:
        return
    if grant.in_grace:
        response[ROTATED] = "true"
    end = grant.ends_at
    if end is not None and (grant.in_grace or end - use.at <= SOON):
        response[EXPIRES] = http_date(end.timestamp())
