"""What the site is filled with: the demo's people and data, and a key in each state.

Run as a process of its own, since tests of a browser have no database; it prints JSON.
"""

import json
from datetime import timedelta

import django

django.setup()

from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.utils import timezone

from django_apikeys import services
from django_apikeys.models import APIKey
from example_project.crm.demo import data

KEYS_OF_TWO_PAGES = 21


def main():
    call_command("migrate", verbosity=0)
    demo = data.fill()
    get_user_model().objects.create_user("nobody", password=data.PASSWORD)
    acme, globex = demo.organisations
    owner = get_user_model().objects.get(username="owner")

    def issue(name, **fields):
        return services.create_key(owner=acme, name=name, actor=owner, **fields)

    busy = issue(
        "Busy",
        description="A key that is used, and has much to show.",
        scopes=["apikeys:read", "apikeys:write", "customers:read", "jobs:*", "self:rotate"],
        rate_limit="600/m",
    )
    kept = {"busy": busy, "rotated": _rotated(issue)}
    kept["disabled"] = issue("Disabled", enabled=False, scopes=["*"])
    kept["expired"] = issue("Expired", environment="test")
    kept["ending"] = issue("Ends soon", allowed_ips=["192.0.2.0/24", "2001:db8::1"])
    kept["revoked"] = issue("Revoked")
    services.revoke_key(key=kept["revoked"].key, actor=owner, reason="Nobody needs it.")
    for name, end in (("expired", -1), ("ending", 2)):
        # services lets nobody make a key that has ended.
        end_at = timezone.now() + timedelta(days=end)
        APIKey.objects.filter(pk=kept[name].key.pk).update(expires_at=end_at)
    child = issue("Made through it", scopes=["customers:read"])
    APIKey.objects.filter(pk=child.key.pk).update(created_by_key=busy.key)
    for number in range(KEYS_OF_TWO_PAGES):
        services.create_key(owner=globex, name=f"Import {number}", scopes=["customers:read"])
    services.revoke_key(key=APIKey.objects.filter(name="Import 0").get())
    facts = {
        name: {"id": str(issued.key.pk), "secret": str(issued.secret)}
        for name, issued in kept.items()
    }
    print(json.dumps(facts))


def _rotated(issue):
    issued = issue("Rotated", scopes=["customers:read"])
    return services.rotate_key(key=issued.key, grace_seconds=7 * 24 * 60 * 60)


if __name__ == "__main__":
    main()
