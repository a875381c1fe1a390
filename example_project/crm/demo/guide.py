"""What the demo says: as JSON for programs, as text for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

from django.urls import reverse

from example_project.crm.demo.data import PASSWORD, PEOPLE, SUPERUSER

if TYPE_CHECKING:
    from example_project.crm.demo.data import Demo

TEXT = """\
The example project is filled.

  site       {site}
  login      {login}
  your page  {page}
  admin      {admin}
  API        {api}
  keys       {keys}
  customers  {customers}

Accounts, each with the password {password}:

{accounts}

A key of {organisation} with all scopes of the CRM. The secret is shown this once:

  {secret}

Calls to try:

  # Make a key, as the owner of {organisation}
  curl -u owner:{password} {keys} \\
       -H 'Content-Type: application/json' \\
       -d '{{"name": "My first key", "scopes": ["customers:read"]}}'

  # Call with a key: it may stand in any of these places
  curl -H 'Authorization: Bearer {secret}' {customers}
  curl -H 'X-API-Key: {secret}' {customers}
  curl -u {basic_username}:{secret} {customers}

  # Create a customer
  curl -H 'X-API-Key: {secret}' {customers} \\
       -H 'Content-Type: application/json' -d '{{"name": "Ada Lovelace"}}'

  # List the keys, and revoke this one; then call with it once more
  curl -u owner:{password} {keys}
  curl -u owner:{password} -X POST {keys}{key_id}/revoke/
"""


def site_of(addrport: str) -> str:
    """Return the site's URL for what ``runserver`` is given: ``8000``, ``0.0.0.0:8000``."""
    host, _colon, port = addrport.rpartition(":")
    if host in ("", "0", "0.0.0.0"):  # noqa: S104 - listens everywhere, is called here
        host = "127.0.0.1"
    return f"http://{host}:{port}/"


def facts(demo: Demo, site: str) -> dict[str, Any]:
    """Return the demo for programs: secret, accounts, organisations and URLs."""
    return {
        "secret": demo.issued.secret,
        "basic_username": demo.acme.slug,
        "superuser": {"username": SUPERUSER, "password": PASSWORD},
        "users": [
            {
                "username": person.username,
                "password": PASSWORD,
                "organisation": person.organisation,
                "role": str(person.role),
            }
            for person in PEOPLE
        ],
        "organisations": [
            {
                "id": organisation.pk,
                "name": organisation.name,
                "slug": organisation.slug,
                "plan": organisation.plan,
            }
            for organisation in demo.organisations
        ],
        "urls": {
            "site": site,
            "api": urljoin(site, reverse("api-root")),
            "keys": urljoin(site, reverse("apikeys:key-list")),
            "customers": urljoin(site, reverse("customer-list")),
            "admin": urljoin(site, reverse("admin:index")),
            "login": urljoin(site, reverse("login")),
            "page": urljoin(site, reverse("apikeys_web:key-list")),
        },
    }


def text(demo: Demo, site: str) -> str:
    """Return the demo for people, with calls to paste into a shell."""
    said = facts(demo, site)
    accounts = [f"  {p.username:9}  {p.role.label} of {p.organisation}" for p in PEOPLE]
    return TEXT.format(
        **said["urls"],
        password=PASSWORD,
        accounts="\n".join([*accounts, f"  {SUPERUSER:9}  superuser, for the admin"]),
        organisation=demo.acme.name,
        secret=said["secret"],
        basic_username=said["basic_username"],
        key_id=demo.issued.key.pk,
    )
