"""An invented month of a few keys, for pictures with something to see."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from django.contrib.auth import get_user_model
from django.db import connection
from django.utils import timezone

from django_apikeys import services
from django_apikeys.actors import Actor
from django_apikeys.models import (
    APIKey,
    APIKeyAddress,
    APIKeyEvent,
    APIKeySecret,
    APIKeySecretTotals,
    APIKeyTotals,
    APIKeyUsage,
    OwnerQuota,
)
from example_project.crm.demo.data import fill
from example_project.crm.models import Organisation

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

ADDRESSES = ("198.51.100.17", "198.51.100.42", "2001:db8::7")
OUTCOMES = {"2xx": 1.0, "4xx": 0.03, "refused": 0.02, "limited": 0.05, "5xx": 0.01}


@dataclass(frozen=True)
class Sketch:
    """A key to be. a_day: its requests; age: in days."""

    name: str
    scopes: tuple[str, ...]
    description: str = ""
    environment: str = "live"
    allowed_ips: tuple[str, ...] = ()
    rate_limit: str | None = None
    days_left: int | None = None
    age: int = 100
    a_day: int = 0
    routes: tuple[str, ...] = field(default=("GET /api/v1/customers/",))


SKETCHES = (
    Sketch("Old importer", ("customers:write",), "Replaced by the sync", age=300),
    Sketch("Trial of the spring", ("*",), environment="test", age=200),
    Sketch("Zapier", ("customers:read", "webhooks:write"), age=150, a_day=40),
    Sketch(
        "Staging checks",
        ("customers:read", "jobs:read"),
        environment="test",
        age=90,
        a_day=120,
    ),
    Sketch(
        "Webhook sender",
        ("jobs:read", "webhooks:write"),
        "Tells the partners of finished jobs",
        allowed_ips=("198.51.100.0/24",),
        rate_limit="300/m",
        age=80,
        a_day=900,
        routes=("GET /api/v1/jobs/", "POST /api/v1/webhooks/"),
    ),
    Sketch("Board report", ("invoices:read",), days_left=5, age=60, a_day=12),
    Sketch(
        "Billing export",
        ("customers:read", "invoices:read", "invoices:write", "pricebook:read"),
        "Nightly export to the accounting",
        allowed_ips=("198.51.100.17", "2001:db8::/64"),
        rate_limit="60/m",
        days_left=80,
        age=45,
        a_day=1600,
        routes=("GET /api/v1/invoices/", "GET /api/v1/customers/", "PATCH /api/v1/invoices/<pk>/"),
    ),
)


def invent() -> dict[str, UUID]:
    """Fill an empty database; return the primary keys by the names of the keys."""
    chance = random.Random(7)  # noqa: S311 - the same picture each time
    demo = fill()
    services.delete_key(key=demo.issued.key)
    Organisation.objects.filter(pk=demo.acme.pk).update(plan="pro")
    person = get_user_model().objects.get(username="owner")
    actor = Actor("user", str(person.pk), person.get_username(), "203.0.113.9", user=person)
    now = timezone.now()
    made = {}
    for sketch in SKETCHES:
        made[sketch.name] = key = _key(sketch, demo.acme, actor, now)
        born = now - timedelta(days=sketch.age, hours=chance.randrange(24))
        _date_back(key, born)
        if sketch.a_day:
            _use(key, sketch, chance, now)
    services.update_key(key=made["Staging checks"], actor=actor, enabled=False)
    services.revoke_key(key=made["Old importer"], actor=actor, reason="Replaced by the sync")
    _end(made["Trial of the spring"], now)
    _rotate(made["Webhook sender"], actor, now)
    through = Actor(
        "key", str(made["Zapier"].pk), "Zapier", ADDRESSES[0], key_id=made["Zapier"].pk
    )
    services.create_key(
        owner=demo.acme, name="Made by Zapier", scopes=["customers:read"], actor=through
    )
    units = sum(APIKeyTotals.objects.values_list("requests", flat=True))
    month = now.date().replace(day=1)
    OwnerQuota.objects.create(owner_id=str(demo.acme.pk), month=month, units=units)
    return {name: key.pk for name, key in made.items()}


def _key(sketch: Sketch, owner: Organisation, actor: Actor, now: datetime) -> APIKey:
    days = sketch.days_left
    return services.create_key(
        owner=owner,
        actor=actor,
        name=sketch.name,
        description=sketch.description,
        scopes=list(sketch.scopes),
        environment=sketch.environment,
        allowed_ips=list(sketch.allowed_ips),
        rate_limit=sketch.rate_limit,
        expires_at=None if days is None else now + timedelta(days=days, hours=1),
    ).key


def _date_back(key: APIKey, born: datetime) -> None:
    APIKey.objects.filter(pk=key.pk).update(created_at=born)
    APIKeySecret.objects.filter(key=key).update(created_at=born, first_used_at=born)
    _date_back_events(key, "created", born)


def _date_back_events(key: APIKey, kind: str, at: datetime) -> None:
    # The app itself changes no event, and offers no way to.
    table = connection.ops.quote_name(APIKeyEvent._meta.db_table)
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {table} SET at = %s WHERE key_id = %s AND type = %s",  # noqa: S608 - a name of our own
            [
                connection.ops.adapt_datetimefield_value(at),
                key.pk.hex if not connection.features.has_native_uuid_field else key.pk,
                kind,
            ],
        )


def _use(key: APIKey, sketch: Sketch, chance: random.Random, now: datetime) -> None:
    rows = list(_rows(key, sketch, chance, now))
    APIKeyUsage.objects.bulk_create(rows)
    requests = sum(row.requests for row in rows)
    errors = sum(row.requests for row in rows if row.outcome != "2xx")
    used = {"last_used_at": now - timedelta(minutes=3), "last_used_ip": ADDRESSES[0]}
    APIKeyTotals.objects.create(key=key, requests=requests, errors=errors, **used)
    APIKeySecretTotals.objects.create(secret=key.current_secret, requests=requests, **used)
    for share, address in enumerate(ADDRESSES, start=2):
        APIKeyAddress.objects.create(
            key_id=key.pk,
            address=address,
            first_seen_at=now - timedelta(days=29),
            last_seen_at=now - timedelta(minutes=3 * share**3),
            requests=requests // share,
        )


def _rows(
    key: APIKey, sketch: Sketch, chance: random.Random, now: datetime
) -> Iterator[APIKeyUsage]:
    hour = now.replace(minute=0, second=0, microsecond=0)
    for hours in range(0, 30 * 24, 3):
        starts_at = hour - timedelta(hours=hours)
        weekend = 0.3 if starts_at.weekday() in (5, 6) else 1.0
        for route in sketch.routes:
            method, path = route.split()
            for outcome, share in OUTCOMES.items():
                mean = sketch.a_day / 8 / len(sketch.routes) * share * weekend
                requests = round(mean * chance.uniform(0.5, 1.5))
                if requests:
                    yield APIKeyUsage(
                        key_id=key.pk,
                        starts_at=starts_at,
                        route=path,
                        method=method,
                        outcome=outcome,
                        requests=requests,
                    )


def _end(key: APIKey, now: datetime) -> None:
    # No key is made that has expired already.
    APIKey.objects.filter(pk=key.pk).update(expires_at=now - timedelta(days=20))


def _rotate(key: APIKey, actor: Actor, now: datetime) -> None:
    services.rotate_key(key=key, actor=actor, grace_seconds=7 * 24 * 3600, reason="Each quarter")
    before = now - timedelta(days=2)
    current, previous = key.current_secret, key.previous_secret_at(now)
    APIKeySecret.objects.filter(pk=current.pk).update(created_at=before, first_used_at=before)
    APIKeySecretTotals.objects.create(
        secret=current, requests=700, last_used_at=now - timedelta(minutes=2)
    )
    APIKeySecretTotals.objects.filter(secret=previous).update(last_used_at=before)
    _date_back_events(key, "rotated", before)
