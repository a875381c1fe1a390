"""How long the pages take with a million keys in the table, beside a thousand.

    python benchmarks/pages.py --database-url postgres://postgres@127.0.0.1/postgres

Makes two databases on that server, fills them (``pages_data``), and drops them at the end; the
role has to be a superuser. One has the 1 000 keys of an organisation, the other these and
those of 10 000 more. The same requests go by turns to the example project over each, behind
gunicorn; some to another one over the same database, without plans, where no owner has a quota.
Prints the medians, their ratio and the number of statements; exit code 1 where a page that is
claimed to be as fast takes more than twice as long, or more statements.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import sys
import time
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

import psycopg
from psycopg import sql

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import pages_data
from benchmarks.sites import HOST, Site

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MOST = 2.0  # times as long
PAGE, ADMIN = "/settings/api-keys/", "/admin/django_apikeys/apikey/"
ACCOUNT = "/api/v1/usage/"
# Each with what they see: one organisation; one and the project; all.
OWNER, ROOT, AUDITOR = "person-1", "root", "auditor"
# The same one, at a site over the same database that has no plans, and so no quotas.
WITHOUT_PLANS = "no quota"

# Of the list: what is narrowed to one owner, and what is left of it for whoever sees all.
SORTS = ("created", "name", "usage", "last_used", "expires")
LIST = (
    "",
    "?page=2",
    "?search={public_id}",
    "?search={masked}",
    "?search={name}",
    "?search=Payroll",
    *(f"?status={name}" for name in ("active", "disabled", "expired", "revoked")),
    "?environment=test",
    "?scope=jobs:read",
    "?status=expired&environment=test&search=Payroll",
    *(f"?sort={sign}{name}" for name in SORTS for sign in ("", "-")),
)
KEY = ("{id}/", "{id}/?span=24h", "{id}/?span=12m", "{id}/settings/", "{id}/history/")
OF_ALL = (
    "?search={public_id}",
    "?status=expired",
    "?sort=expires",
    "?sort=-expires",
    "?search={name}",
    "?sort=name",
    "?sort=-usage",
)
ADMIN_LIST = (
    "",
    "?p=2",
    "?q={public_id}",
    "?q={masked}",
    *(f"?status={name}" for name in ("active", "disabled", "expired", "revoked")),
    "?environment=test",
    "?owner=organisation-1",
    "?created_by=person-1",
    *(f"?o={sign}{column}" for column in (4, 5) for sign in ("", "-")),
    "{id}/change/",
)
# These read what they look for, or find on a page of the small table less than fits.
ADMIN_REST = (
    "?q=Payroll",
    "?q={name}",
    "?expiring=7",
    "?expiring=90",
    "?unused=never",
    "?unused=30",
    "?age=90",
    "?age=365",
)
# Who asks for what, and whether it has to be as fast.
CASES = (
    *((OWNER, PAGE + path, True) for path in (*LIST, *KEY)),
    (WITHOUT_PLANS, PAGE, True),
    (WITHOUT_PLANS, ACCOUNT, True),
    *((ROOT, ADMIN + path, True) for path in ADMIN_LIST),
    *((ROOT, ADMIN + path, False) for path in ADMIN_REST),
    *((ROOT, PAGE + path, True) for path in ("", "?search={public_id}", "?sort=name")),
    (AUDITOR, PAGE, True),
    *((AUDITOR, PAGE + path, False) for path in OF_ALL),
)
# Prints the session of each person; and of one key by what it is found.
PREPARED = f"""
import json
from django.contrib.auth import get_user_model
from django.test import Client
from django_apikeys.models import APIKeySecret
sessions = {{}}
for name in {(OWNER, ROOT, AUDITOR)}:
    client = Client()
    client.force_login(get_user_model().objects.get(username=name))
    sessions[name] = client.cookies["sessionid"].value
secret = APIKeySecret.objects.get(key__name__endswith=" 776", key__owner=1, slot=0)
facts = {{"id": str(secret.key_id), "public_id": secret.public_id}}
print(json.dumps([sessions, {{**facts, "masked": secret.masked, "name": secret.key.name}}]))
"""


def main() -> int:
    options = parsed()
    sizes = (pages_data.OWN, options.keys)
    with ExitStack() as stack:
        visitors = [stack.enter_context(visitor(options, keys)) for keys in sizes]
        found = [
            (is_claimed, measured(who, path, visitors, options.rounds, is_claimed=is_claimed))
            for who, path, is_claimed in CASES
        ]
    claimed = [holds for is_claimed, holds in found if is_claimed]
    print(f"{sum(claimed)} of {len(claimed)} hold")
    return 0 if all(claimed) else 1


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--database-url", required=True, help="a database of the server")
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--keep", action="store_true", help="the databases, for the next run")
    return parser.parse_args()


@contextmanager
def visitor(options: argparse.Namespace, keys: int) -> Iterator[Visitor]:
    """What asks a site with so many keys, which ends with it."""
    url = urlsplit(options.database_url)._replace(path=f"/apikeys_pages_{keys}").geturl()
    with psycopg.connect(options.database_url, autocommit=True) as server:
        name = sql.Identifier(f"apikeys_pages_{keys}")
        settings = {"DJANGO_SETTINGS_MODULE": "benchmarks.pages_settings"}
        site = Site(1, url, **settings)
        without_plans = Site(1, url, **settings, PAGES_WITHOUT_PLANS="1")
        is_there = exists(server, f"apikeys_pages_{keys}")
        try:
            if not is_there:
                server.execute(sql.SQL("CREATE DATABASE {}").format(name))
                fill(site, url, keys)
            with site.running(), without_plans.running():
                yield Visitor(site, without_plans)
        finally:
            if not options.keep:
                server.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))


def exists(server: psycopg.Connection, name: str) -> bool:
    """Tell whether an earlier run has kept the database."""
    query = "SELECT 1 FROM pg_database WHERE datname = %s"
    return server.execute(query, [name]).fetchone() is not None


def fill(site: Site, url: str, keys: int) -> None:
    begun = time.monotonic()
    site.manage("migrate", "--verbosity", "0")
    pages_data.fill(url, keys)
    print(f"{keys} keys were stored in {time.monotonic() - begun:.0f} s")


class Visitor:
    """People who are logged in at one site, and one of them at another without plans."""

    def __init__(self, site: Site, without_plans: Site) -> None:
        self._site, self._without_plans = site, without_plans
        self._sessions, self._facts = json.loads(site.manage("shell", "-v", "0", "-c", PREPARED))
        self._sessions[WITHOUT_PLANS] = self._sessions[OWNER]

    def ask(self, who: str, path: str) -> tuple[float, int]:
        """Return how many milliseconds the answer took, and how many statements."""
        target = quote(path.format(**self._facts), safe="/?=&")
        site = self._without_plans if who == WITHOUT_PLANS else self._site
        connection = http.client.HTTPConnection(HOST, site.port, timeout=120)
        begun = time.perf_counter()
        connection.request("GET", target, headers={"Cookie": f"sessionid={self._sessions[who]}"})
        answer = connection.getresponse()
        answer.read()
        millis = (time.perf_counter() - begun) * 1000
        connection.close()
        if answer.status != HTTPStatus.OK:
            raise SystemExit(f"{who} asked for {target} and got {answer.status}")
        return millis, int(answer.headers["X-Statements"])


def measured(
    who: str, path: str, visitors: Sequence[Visitor], rounds: int, *, is_claimed: bool
) -> bool:
    """Print what a page takes, of one visitor after the other; tell whether it is as fast."""
    for visitor in visitors:
        visitor.ask(who, path)  # what is read for the first time is not what is measured
    answers = [[visitor.ask(who, path) for visitor in visitors] for _ in range(rounds)]
    by_site = list(zip(*answers, strict=True))
    small, large = (statistics.median(millis for millis, _ in site) for site in by_site)
    few, many = (max(number for _, number in site) for site in by_site)
    holds = large <= MOST * small and many <= few
    verdict = "" if holds else "FAILS" if is_claimed else "slower"
    print(
        f"{who:9}{path:66}{small:8.1f} ms{large:8.1f} ms{large / small:8.2f} {few:4}{many:4} "
        f"{verdict}",
        flush=True,
    )
    return holds


if __name__ == "__main__":
    sys.exit(main())
