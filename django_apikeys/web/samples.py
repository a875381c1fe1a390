"""Calls to paste: with the secret in the environment, where it stands in no file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.urls import NoReverseMatch, reverse

from django_apikeys.conf import conf

if TYPE_CHECKING:
    from django.http import HttpRequest


@dataclass(frozen=True, slots=True)
class _Way:
    """A way to send a secret, by language. name: of the header."""

    name: str
    curl: str
    javascript: str
    python: str
    imports: str = ""


def _in_header(name: str, scheme: str = "") -> _Way:
    return _Way(
        name,
        curl=f'-H "{name}: {scheme}$API_KEY"',
        javascript=f"`{scheme}${{process.env.API_KEY}}`",
        python=f"f\"{scheme}{{os.environ['API_KEY']}}\"",
    )


_WAYS = {
    "bearer": _in_header("Authorization", "Bearer "),
    "api-key": _in_header("Authorization", "Api-Key "),
    "x-api-key": _in_header("X-API-Key"),
    "basic": _Way(
        "Authorization",
        curl='-u ":$API_KEY"',
        javascript='"Basic " + btoa(":" + process.env.API_KEY)',
        python='"Basic " + base64.b64encode(f":{os.environ[\'API_KEY\']}".encode()).decode()',
        imports="import base64\n",
    ),
}
_JAVASCRIPT = """\
const response = await fetch("{url}", {{
  headers: {{ "{way.name}": {way.javascript} }},
}});
console.log(response.status, await response.text());"""
_PYTHON = """\
{way.imports}import os
import urllib.request

request = urllib.request.Request(
    "{url}",
    headers={{"{way.name}": {way.python}}},
)
with urllib.request.urlopen(request) as response:
    print(response.status, response.read().decode())"""


def samples(request: HttpRequest) -> list[tuple[str, str, str]]:
    """Return an id, a title and a text for each: the site's own URL, and no secret.

    They call ``keys/self/``, which tells any key of itself; where the management API is
    not mounted, the root of the site.
    """
    # Basic says least of what it sends: where there is another way, that one.
    accepted = sorted(conf.CREDENTIALS, key=lambda way: way == "basic")
    way = _WAYS[accepted[0]]
    url = request.build_absolute_uri(_path())
    return [
        ("curl", "curl", f'curl {way.curl} "{url}"'),
        ("javascript", "JavaScript", _JAVASCRIPT.format(url=url, way=way)),
        ("python", "Python", _PYTHON.format(url=url, way=way)),
    ]


def _path() -> str:
    try:
        return reverse("apikeys:key-self")
    except NoReverseMatch:
        return "/"
