"""Calls to paste: with the secret in the environment, where it stands in no file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.urls import NoReverseMatch, reverse

from django_apikeys.conf import conf

if TYPE_CHECKING:
    from django.http import HttpRequest

_HEADERS = {
    "bearer": ("Authorization", "Bearer "),
    "api-key": ("Authorization", "Api-Key "),
    "x-api-key": ("X-API-Key", ""),
}
_JAVASCRIPT = """\
const response = await fetch("{url}", {{
  headers: {{ "{name}": `{scheme}${{process.env.API_KEY}}` }},
}});
console.log(response.status, await response.text());"""
_PYTHON = """\
import os
import urllib.request

request = urllib.request.Request(
    "{url}",
    headers={{"{name}": f"{scheme}{{os.environ['API_KEY']}}"}},
)
with urllib.request.urlopen(request) as response:
    print(response.status, response.read().decode())"""


def samples(request: HttpRequest) -> list[tuple[str, str, str]]:
    """Return an id, a title and a text for each: the site's own URL, and no secret.

    They call ``keys/self/``, which tells any key of itself; where the management API is
    not mounted, the root of the site.
    """
    name, scheme = next(
        (_HEADERS[way] for way in conf.CREDENTIALS if way in _HEADERS), _HEADERS["bearer"]
    )
    words = {"url": request.build_absolute_uri(_path()), "name": name, "scheme": scheme}
    return [
        ("curl", "curl", 'curl -H "{name}: {scheme}$API_KEY" "{url}"'.format(**words)),
        ("javascript", "JavaScript", _JAVASCRIPT.format(**words)),
        ("python", "Python", _PYTHON.format(**words)),
    ]


def _path() -> str:
    try:
        return reverse("apikeys:key-self")
    except NoReverseMatch:
        return "/"
