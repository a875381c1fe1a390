"""Two organisations with people, data and a key. Filled once, however often it is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import cycle, islice, product
from typing import TYPE_CHECKING

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import transaction
from django.utils import timezone

from django_apikeys import services
from django_apikeys.actors import Actor
from django_apikeys.models import APIKey
from example_project.crm.models import (
    Customer,
    Invoice,
    Job,
    Membership,
    Organisation,
    PriceBookItem,
    Role,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django_apikeys.services import IssuedSecret

PASSWORD = "demo-password"  # noqa: S105 - well known on purpose
SUPERUSER = "staff"
ACTOR = Actor("command", name="manage.py demo")
KEY_NAME = "Demo key"
FIRST_DAY = datetime(2025, 1, 6, 8, 0, tzinfo=UTC)
INVOICES = 30


@dataclass(frozen=True)
class Person:
    """A user and what they are in their organisation."""

    username: str
    organisation: str
    role: Role


@dataclass(frozen=True)
class Demo:
    """What there is after filling: rows, and the one chance to show the key's secret."""

    organisations: Sequence[Organisation]
    issued: IssuedSecret

    @property
    def acme(self) -> Organisation:
        return self.organisations[0]


ORGANISATIONS = (
    Organisation(slug="acme", name="Acme", plan="enterprise"),
    Organisation(slug="globex", name="Globex", plan="free"),
)
PEOPLE = (
    Person("owner", "acme", Role.OWNER),
    Person("admin", "acme", Role.ADMIN),
    Person("member", "acme", Role.MEMBER),
    Person("rival", "globex", Role.OWNER),
)
GIVEN_NAMES = ("Maria", "James", "Aisha", "Lars", "Chen", "Sofia")
FAMILY_NAMES = {
    "acme": ("Keller", "Brooks", "Okafor", "Lindqvist", "Tanaka", "Moreau"),
    "globex": ("Novak", "Hughes", "Rossi", "Haddad", "Ferreira", "Walsh"),
}
WORK = (
    "Boiler service",
    "Leaking tap",
    "New radiator",
    "Blocked drain",
    "Water heater check",
    "Bathroom estimate",
    "Pressure test",
    "Emergency call",
)
PRICES = {
    "Call-out, first half hour": "79.00",
    "Each further half hour": "39.50",
    "Emergency surcharge": "60.00",
    "Weekend surcharge": "45.00",
    "Boiler service": "129.00",
    "Boiler, condensing, 24 kW": "1490.00",
    "Radiator, single panel": "118.00",
    "Radiator, double panel": "174.00",
    "Radiator valve": "24.90",
    "Thermostat, wired": "54.00",
    "Thermostat, wireless": "119.00",
    "Expansion vessel, 18 l": "68.00",
    "Circulation pump": "215.00",
    "Mixer tap, basin": "89.00",
    "Mixer tap, kitchen": "134.00",
    "Shower set": "199.00",
    "Siphon": "14.50",
    "Drain cleaning": "149.00",
    "Camera inspection": "185.00",
    "Copper pipe, 15 mm, 1 m": "8.90",
    "Copper pipe, 22 mm, 1 m": "13.40",
    "Pipe insulation, 1 m": "3.20",
    "Water heater, 80 l": "540.00",
    "Pressure test with report": "95.00",
}


@transaction.atomic
def fill() -> Demo:
    """Return what the demo consists of; what is there already is left as it is."""
    organisations = [_organisation(template) for template in ORGANISATIONS]
    for person in PEOPLE:
        _person(person)
    _user(SUPERUSER, is_superuser=True, is_staff=True)
    for organisation in organisations:
        if not organisation.customers.exists():
            _rows(organisation)
    return Demo(organisations, _key(organisations[0]))


def _organisation(template: Organisation) -> Organisation:
    organisation, _created = Organisation.objects.get_or_create(
        slug=template.slug, defaults={"name": template.name, "plan": template.plan}
    )
    return organisation


def _person(person: Person) -> None:
    Membership.objects.update_or_create(
        organisation=Organisation.objects.get(slug=person.organisation),
        user_id=_user(person.username),
        defaults={"role": person.role},
    )


def _user(username: str, **fields: bool) -> int:
    """Return the primary key of a user who can log in with the demo's password."""
    user, _created = get_user_model().objects.update_or_create(
        username=username,
        defaults={"email": f"{username}@example.com", "is_active": True, **fields},
    )
    if not user.check_password(PASSWORD):
        user.set_password(PASSWORD)
        user.save(update_fields=["password"])
    return user.pk


def _rows(organisation: Organisation) -> None:
    names = product(GIVEN_NAMES, FAMILY_NAMES[organisation.slug])
    Customer.objects.bulk_create(
        Customer(
            organisation=organisation,
            created_at=FIRST_DAY + timedelta(days=7 * number),
            name=f"{given} {family}",
            email=f"{given}.{family}@example.com".lower(),
            phone=f"+1 555 {100 + number:04}",
        )
        for number, (given, family) in enumerate(names)
    )
    # Asked for again: not every database says which ids it has given.
    customers = list(organisation.customers.order_by("id"))
    Job.objects.bulk_create(
        Job(
            organisation=organisation,
            customer=customer,
            created_at=customer.created_at + timedelta(days=1),
            scheduled_at=customer.created_at + timedelta(days=10),
            title=title,
            status=status,
        )
        for customer, title, status in zip(customers, cycle(WORK), cycle(Job.Status), strict=False)
    )
    Invoice.objects.bulk_create(
        Invoice(
            organisation=organisation,
            customer=customer,
            created_at=customer.created_at + timedelta(days=12),
            number=f"{organisation.slug.upper()}-{1001 + number}",
            amount=Decimal("79.00") + Decimal("39.50") * (number % 9),
            status=status,
        )
        for number, (customer, status) in enumerate(
            zip(islice(customers, INVOICES), cycle(Invoice.Status), strict=False)
        )
    )
    PriceBookItem.objects.bulk_create(
        PriceBookItem(
            organisation=organisation,
            created_at=FIRST_DAY,
            sku=f"P-{100 + number}",
            name=name,
            price=Decimal(price),
        )
        for number, (name, price) in enumerate(PRICES.items())
    )


def _key(organisation: Organisation) -> IssuedSecret:
    """Return the demo's key with a new secret, since nobody can say an old one again.

    That of the run before lives on for its grace, for whoever is using it.
    """
    keys = APIKey.objects.filter(owner=organisation, name=KEY_NAME, metadata__demo=True)
    now = timezone.now()
    made = next((key for key in keys if key.status_at(now) == "active"), None)
    if made is not None:
        return services.rotate_key(key=made, actor=ACTOR, reason="The demo was run again.")
    return services.create_key(
        owner=organisation,
        name=KEY_NAME,
        description="Made by manage.py demo, with all scopes of the CRM.",
        scopes=list(settings.APIKEYS_SCOPES),
        metadata={"demo": True},
        actor=ACTOR,
    )
