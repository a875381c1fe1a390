"""Secrets are rotated and retired in the admin, and what somebody may try there."""

import re
from datetime import UTC, datetime, timedelta
from html import unescape

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
from django.db import DatabaseError
from django.test import Client
from django.utils import timezone

from django_apikeys import services
from django_apikeys.admin import APIKeyAdmin
from django_apikeys.models import APIKey, APIKeyEvent, APIKeySecret, APIKeySecretTotals
from django_apikeys.policy import UserPolicy
from tests.conftest import bearer
from tests.factories import APIKeyFactory, UserFactory
from tests.test_admin import LIST, SECRET, signed_in
from tests.test_admin_actions import told
from tests.test_admin_change import readonly

DAY = 24 * 60 * 60
ANOTHER = "The secret of this key is another by now: look at the key again."
PAGES = ("rotate", "retire")


class AllPolicy(UserPolicy):
    """Everyone manages all keys, and may grant all scopes."""

    def owners(self, person, action):
        return get_user_model()._default_manager.all()


class ReadingPolicy(AllPolicy):
    """The same, but may grant ``customers:read`` and nothing else."""

    def grantable_scopes(self, person, owner):
        return ["customers:read"]


class NoRotationPolicy(AllPolicy):
    """Everyone does everything with all keys, but rotates none."""

    def owners(self, person, action):
        owners = super().owners(person, action)
        return owners.none() if action == "rotate" else owners


@pytest.fixture
def key(issued):
    return issued.key


@pytest.fixture
def rotated(key):
    """The key, whose previous secret is alive."""
    services.rotate_key(key=key)
    return key


def url(key, page="rotate"):
    return f"{LIST}{key.pk}/{page}/"


def body(response):
    return unescape(response.content.decode())


def asked(key, **fields):
    return {
        "current": key.current_secret.public_id,
        "compromised": "no",
        "grace_seconds": str(DAY),
        "starts": "now",
        "reason": "",
        **fields,
    }


def secret_of(response):
    return SECRET.search(body(response))[0]


def buttons(client, key):
    page = body(client.get(url(key, "change")))
    return [name for name in PAGES if url(key, name) in page]


def rotations():
    return APIKeyEvent.objects.filter(type="rotated").count()


def errors(response):
    return response.context["form"].errors


def owner_who_may(owner, *permissions):
    """Return a client of *owner*, who has become staff."""
    owner.is_staff = True
    owner.save()
    client = signed_in(*permissions)
    owner.user_permissions.set(get_user(client).user_permissions.all())
    client.force_login(owner)
    return client


def get_user(client):
    return get_user_model().objects.get(pk=client.session["_auth_user_id"])


# --- What somebody may try ----------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize(
    "permissions",
    [("view_apikey",), ("view_apikey", "add_apikey", "delete_apikey", "revoke_apikey"), ()],
    ids=["view", "all others", "none"],
)
def test_without_the_permission_to_change_the_pages_are_forbidden(
    permissions, method, page, rotated
):
    client = signed_in(*permissions)

    response = getattr(client, method)(url(rotated, page), asked(rotated, confirmed="1"))

    assert response.status_code == 403
    assert APIKeyEvent.objects.filter(type__in=["rotated", "retired"]).count() == 1


def test_who_may_only_view_sees_no_buttons(rotated):
    client = signed_in("view_apikey")

    assert client.get(url(rotated, "change")).status_code == 200
    assert buttons(client, rotated) == []


@pytest.mark.parametrize("method", ["get", "post"])
def test_staff_do_not_rotate_the_key_of_another(method, key):
    """By the new secret they would act as its owner, who may do more."""
    client = signed_in("change_apikey", "add_apikey", "view_apikey")

    response = getattr(client, method)(url(key), asked(key))

    assert response.status_code == 403
    assert buttons(client, key) == []
    assert rotations() == 0


def test_staff_do_not_rotate_a_key_of_the_project(db):
    key = APIKeyFactory(owner=None)
    client = signed_in("change_apikey")

    response = client.post(url(key), asked(key))

    assert response.status_code == 403
    assert rotations() == 0


def test_where_the_policy_lets_nobody_rotate_staff_do_not(key, settings):
    settings.APIKEYS_POLICY = "tests.test_admin_rotation.NoRotationPolicy"
    client = signed_in("change_apikey")

    response = client.post(url(key), asked(key))

    assert response.status_code == 403
    assert buttons(client, key) == []
    assert rotations() == 0


def test_staff_do_not_rotate_a_key_with_a_scope_that_they_may_not_grant(issue, settings):
    settings.APIKEYS_POLICY = "tests.test_admin_rotation.ReadingPolicy"
    key = issue(scopes=["customers:read", "jobs:write"]).key
    client = signed_in("change_apikey")

    response = client.post(url(key), asked(key))

    assert response.status_code == 403
    assert buttons(client, key) == []
    assert rotations() == 0


def test_the_ceiling_is_asked_again_under_the_lock(key, settings, monkeypatch):
    """Whoever widens a key while the page is looked at hands out no secret of it."""
    settings.APIKEYS_POLICY = "tests.test_admin_rotation.ReadingPolicy"
    rotate_key = services.rotate_key

    def rotate_after_a_change(**fields):
        services.update_key(key=key, scopes=["jobs:write"])
        return rotate_key(**fields)

    monkeypatch.setattr(services, "rotate_key", rotate_after_a_change)

    response = signed_in("change_apikey").post(url(key), asked(key))

    assert errors(response) == {
        "__all__": ["This is more than you may give to an API key: scopes (jobs:write)."]
    }
    assert rotations() == 0


def test_staff_rotate_what_the_policy_lets_them(key, settings):
    settings.APIKEYS_POLICY = "tests.test_admin_rotation.ReadingPolicy"
    client = signed_in("change_apikey")

    offered = buttons(client, key)
    response = client.post(url(key), asked(key))

    assert offered == ["rotate"]
    assert SECRET.search(body(response))


def test_staff_rotate_a_key_of_their_own(key, user):
    client = owner_who_may(user, "change_apikey")

    assert SECRET.search(body(client.post(url(key), asked(key))))


def test_a_superuser_is_bound_by_no_ceiling(issue, admin_client, settings):
    settings.APIKEYS_POLICY = "tests.test_admin_rotation.NoRotationPolicy"
    key = issue(scopes=["*"]).key

    assert SECRET.search(body(admin_client.post(url(key), asked(key))))


def test_staff_retire_what_they_could_not_rotate(rotated):
    """To end a secret gives nobody more."""
    client = signed_in("change_apikey")

    assert buttons(client, rotated) == ["retire"]
    client.post(url(rotated, "retire"), retiring(rotated))

    assert APIKeySecret.objects.filter(slot=1).count() == 0


@pytest.mark.parametrize("page", PAGES)
def test_a_post_without_a_token_of_the_form_is_refused(page, rotated):
    client = Client(enforce_csrf_checks=True)
    client.force_login(UserFactory(superuser=True))

    response = client.post(url(rotated, page), asked(rotated, confirmed="1"))

    assert response.status_code == 403


def test_to_look_at_the_pages_changes_nothing(rotated, admin_client):
    before = list(APIKeySecret.objects.values())

    for page in PAGES:
        admin_client.get(url(rotated, page), asked(rotated, confirmed="1"))

    assert list(APIKeySecret.objects.values()) == before


def test_a_rotation_asks_for_a_form_that_says_what_it_saw(key, admin_client):
    """A link or a form of elsewhere, which says nothing of the secret, does nothing."""
    response = admin_client.post(url(key), {**asked(key), "current": ""})

    assert errors(response) == {"__all__": [ANOTHER]}
    assert rotations() == 0


# --- A new secret -------------------------------------------------------------------------


def test_the_new_secret_works_and_the_one_before_for_its_grace(issued, admin_client, client):
    response = admin_client.post(url(issued.key), asked(issued.key))

    secret = secret_of(response)
    previous = APIKeySecret.objects.get(slot=1)
    left = previous.retires_at - timezone.now()
    assert response.status_code == 200
    assert secret != issued.secret
    assert client.get("/customers/", headers=bearer(secret)).status_code == 200
    assert client.get("/customers/", headers=bearer(issued.secret)).status_code == 200
    assert timedelta(hours=23) < left <= timedelta(days=1)
    assert "API key rotated" in body(response)
    assert f"Previous secret: {previous.masked}, until" in body(response)


def test_the_page_with_the_secret_is_not_stored(key, admin_client):
    response = admin_client.post(url(key), asked(key))

    assert "no-store" in response["Cache-Control"]
    assert response["Referrer-Policy"] == "same-origin"
    assert response["X-Frame-Options"] == "DENY"


def test_the_secret_stands_on_that_one_page(key, admin_client):
    """Not in a message, a cookie, the session, the log of the admin or another page."""
    response = admin_client.post(url(key), asked(key))

    random = secret_of(response).rpartition("_")[2]
    elsewhere = [
        str(response.cookies),
        str(response.headers),
        str(dict(admin_client.cookies)),
        str([row.get_decoded() for row in Session.objects.all()]),
        str(list(LogEntry.objects.values())),
        str(list(APIKeyEvent.objects.values())),
        *(body(admin_client.get(url(key, page))) for page in ("change", "history", *PAGES)),
        body(admin_client.get(LIST)),
        body(admin_client.get("/admin/")),
    ]
    assert [text for text in elsewhere if random in text] == []


def test_history_and_event_tell_who_rotated(key, admin_client, admin_user):
    admin_client.post(
        url(key), asked(key, reason="Ann has left."), headers={"User-Agent": "a browser"}
    )

    entry = LogEntry.objects.get()
    event = APIKeyEvent.objects.get(type="rotated")
    assert (entry.get_change_message(), entry.object_id) == ("Rotated.", str(key.pk))
    assert entry.user == admin_user
    assert (event.actor_kind, event.actor_name, event.reason) == ("user", "admin", "Ann has left.")
    assert (event.address, event.user_agent) == ("127.0.0.1", "a browser")


GRACES = {
    "none": (0, None),
    "an hour": (3600, timedelta(hours=1)),
    "a week": (604800, timedelta(days=7)),
    "a month": (2592000, timedelta(days=30)),
}


@pytest.mark.parametrize(("seconds", "grace"), GRACES.values(), ids=GRACES.keys())
def test_the_grace_is_one_of_those_offered(seconds, grace, key, admin_client):
    page = body(admin_client.get(url(key)))
    response = admin_client.post(url(key), asked(key, grace_seconds=str(seconds)))

    previous = APIKeySecret.objects.filter(slot=1).first()
    assert f'<option value="{seconds}">' in page
    assert SECRET.search(body(response))
    if grace is None:
        assert previous is None
        assert "Previous secret" not in body(response)
    else:
        left = previous.retires_at - timezone.now()
        assert grace - timedelta(minutes=1) < left <= grace


def test_the_grace_may_begin_with_the_first_use(key, admin_client):
    response = admin_client.post(url(key), asked(key, starts="first_use"))

    assert APIKeySecret.objects.get(slot=1).retires_at is None
    assert "until the current one is used, and then for its grace" in body(response)


def test_a_leak_ends_every_earlier_secret_whatever_grace_is_ticked(rotated, admin_client):
    """The form proposes a day, which nobody in a hurry has to take back first."""
    response = admin_client.post(
        url(rotated), asked(rotated, compromised="yes", starts="first_use")
    )

    event = APIKeyEvent.objects.order_by("id").last()
    assert SECRET.search(body(response))
    assert APIKeySecret.objects.filter(slot__isnull=False).count() == 1
    assert event.changes["compromised"] == [None, True]


def test_the_form_proposes_a_planned_rotation_with_a_day(key, admin_client):
    page = body(admin_client.get(url(key)))

    assert f'<option value="{DAY}" selected>' in page
    assert re.findall(r'value="(\w+)"[^>]*checked', page) == ["no", "now"]
    assert f'name="current" value="{key.current_secret.public_id}"' in page


# --- The same form twice ------------------------------------------------------------------


def test_the_same_form_sent_twice_makes_one_secret(key, admin_client):
    """A reload of the page with the secret, a double click, two people with the same page."""
    fields = asked(key, reason="Typed")
    admin_client.post(url(key), fields)

    again = admin_client.post(url(key), fields)

    assert errors(again) == {"__all__": [ANOTHER]}
    assert SECRET.search(body(again)) is None
    assert 'value="Typed"' in body(again)
    assert f'href="{url(key, "change")}"' in body(again)
    assert rotations() == LogEntry.objects.count() == 1


def test_nor_does_it_once_it_has_been_refused(key, admin_client):
    """The page that says so sends what was seen then, not what is there now."""
    fields = asked(key)
    admin_client.post(url(key), fields)
    again = admin_client.post(url(key), fields)

    shown = re.search(r'name="current" value="(\w+)"', body(again))[1]

    assert shown == fields["current"]


def test_the_second_of_two_forms_at_once_is_told_so(key, admin_client, monkeypatch):
    """Both were good when they were looked at; one finds another secret under the lock."""
    rotate = APIKeyAdmin._rotate

    def rotate_after_another(*args):
        services.rotate_key(key=APIKey.objects.get(pk=key.pk))
        return rotate(*args)

    monkeypatch.setattr(APIKeyAdmin, "_rotate", rotate_after_another)

    response = admin_client.post(url(key), asked(key))

    assert errors(response) == {"__all__": [ANOTHER]}
    assert rotations() == 1


def test_a_history_that_cannot_be_written_hands_out_no_secret(key, admin_client, monkeypatch):
    def fail(*args):
        raise DatabaseError("gone")

    monkeypatch.setattr(APIKeyAdmin, "log_change", fail)

    with pytest.raises(DatabaseError):
        admin_client.post(url(key), asked(key))

    assert rotations() == 0
    assert APIKeySecret.objects.get().public_id == key.current_secret.public_id


def test_a_key_that_has_lost_its_secret_gets_one(key, admin_client):
    APIKeySecret.objects.all().delete()

    page = body(admin_client.get(url(key)))
    response = admin_client.post(url(key), {**asked(key), "current": ""})
    again = admin_client.post(url(key), {**asked(key), "current": ""})

    assert page.count('<div class="readonly">none</div>') == 2
    assert SECRET.search(body(response))
    assert errors(again) == {"__all__": [ANOTHER]}


# --- Bad input, and keys that are not rotated -----------------------------------------------


BAD = {
    "no reason why": ({"compromised": ""}, "compromised"),
    "another why": ({"compromised": "maybe"}, "compromised"),
    "a grace that is not offered": ({"grace_seconds": "5"}, "grace_seconds"),
    "a grace that is no number": ({"grace_seconds": "long"}, "grace_seconds"),
    "another start": ({"starts": "later"}, "starts"),
    "a reason that is too long": ({"reason": "x" * 501}, "reason"),
    "a reason that is no line": ({"reason": "a\x07b"}, "reason"),
}


@pytest.mark.parametrize(("fields", "name"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_told_beside_its_field_and_nothing_typed_is_lost(
    fields, name, key, admin_client
):
    sent = asked(key, grace_seconds="604800", starts="first_use", reason="Typed")

    response = admin_client.post(url(key), {**sent, **fields})

    page = body(response)
    assert list(errors(response)) == [name]
    assert "Please correct the error below." in page
    assert rotations() == 0
    if "reason" not in fields:
        assert 'value="Typed"' in page
    if "grace_seconds" not in fields:
        assert '<option value="604800" selected>' in page


DEAD = {
    "revoked": ({"revoked": True}, "This key is revoked, for good."),
    "disabled": ({"disabled": True}, "This key is disabled: enable it first."),
    "expired": ({"expired": True}, "This key has expired: give it a later end first."),
}


@pytest.mark.parametrize(("state", "reason"), DEAD.values(), ids=DEAD.keys())
def test_a_key_that_is_not_active_is_not_rotated(state, reason, admin_client):
    key = APIKeyFactory(**state)

    opened = admin_client.get(url(key), follow=True)
    sent = admin_client.post(url(key), asked(key, reason="Typed"))

    assert buttons(admin_client, key) == []
    assert opened.redirect_chain == [(url(key, "change"), 302)]
    assert told(opened) == ["Only an active key can be rotated."]
    assert errors(sent) == {"__all__": [reason]}
    assert 'value="Typed"' in body(sent)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("deleted", [True, False])
def test_a_key_that_is_not_there_leads_to_the_list(page, deleted, admin_client):
    key = APIKeyFactory(deleted=True)
    if not deleted:
        key.pk = "6d2f0a3c-0000-4000-8000-000000000000"

    response = admin_client.post(url(key, page), {"confirmed": "1"}, follow=True)

    assert response.redirect_chain == [(LIST, 302)]
    assert told(response) == ["There are no such keys."]


# --- What the pages show --------------------------------------------------------------------


MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def used(slot, **fields):
    APIKeySecretTotals.objects.create(
        secret=APIKeySecret.objects.get(slot=slot), last_used_at=MOMENT, **fields
    )


METERS = {
    "one use": ({"in_grace": 1}, "1 use since the rotation, the last at 2026-01-02 03:04:05 UTC"),
    "many": (
        {"in_grace": 12, "last_used_ip": "192.0.2.7"},
        "12 uses since the rotation, the last at 2026-01-02 03:04:05 UTC from 192.0.2.7",
    ),
    "none since": ({"requests": 7, "last_used_ip": "192.0.2.7"}, "not used since the rotation"),
}


@pytest.mark.parametrize(("counted", "text"), METERS.values(), ids=METERS.keys())
def test_the_meter_of_the_previous_secret(counted, text, rotated, admin_client, settings):
    settings.TIME_ZONE = "UTC"
    APIKeySecret.objects.filter(slot=1).update(retires_at=MOMENT.replace(year=2040))
    used(1, **counted)
    masked = APIKeySecret.objects.get(slot=1).masked

    shown = f"{masked}, until 2040-01-02 03:04:05 UTC · {text}"

    assert readonly(admin_client, rotated)["previous"] == shown
    assert all(shown in body(admin_client.get(url(rotated, page))) for page in PAGES)


def test_a_previous_secret_ends_with_its_key_where_that_is_sooner(rotated, admin_client, settings):
    settings.TIME_ZONE = "UTC"
    services.update_key(key=rotated, expires_at=timezone.now() + timedelta(hours=1))
    ends = APIKey.objects.get().expires_at

    assert f", until {ends:%Y-%m-%d %H:%M:%S UTC}" in readonly(admin_client, rotated)["previous"]


def test_the_meter_of_the_current_secret(key, admin_client, settings):
    settings.TIME_ZONE = "UTC"
    unused = body(admin_client.get(url(key)))
    used(0, requests=3, last_used_ip="192.0.2.7")

    page = body(admin_client.get(url(key)))

    assert f"{key.masked} · not used yet" in unused
    text = "3 requests, the last at 2026-01-02 03:04:05 UTC from 192.0.2.7"
    assert f"{key.masked} · {text}" in page


def test_the_page_says_what_becomes_of_two_secrets(rotated, admin_client):
    of_unused = body(admin_client.get(url(rotated)))
    APIKeySecret.objects.filter(slot=0).update(first_used_at=MOMENT)

    of_used = body(admin_client.get(url(rotated)))

    assert "The current secret was never used: the new one replaces it" in of_unused
    assert "The previous secret ends with the rotation" in of_used


def test_the_page_counts_the_live_keys_that_were_made_through_the_key(key, admin_client):
    """Whoever had the secret may have made them: they are looked at, and revoked."""
    child = APIKeyFactory(name="Child", created_by_key=key)
    APIKeyFactory(name="Another")
    APIKeyFactory(created_by_key=key, revoked=True)

    page = body(admin_client.get(url(key)))
    link = re.search(r'href="([^"]+created_by_key[^"]+)"', page)[1]
    listed = admin_client.get(link).context["cl"].result_list

    assert "1 live key was made directly through this one." in page
    assert child in listed
    assert len(listed) == 2


def test_a_name_is_escaped_wherever_it_is_shown(issue, admin_client):
    key = issue(name="<script>alert(1)</script>").key
    services.rotate_key(key=key)

    pages = [*(admin_client.get(url(key, page)) for page in PAGES)]
    pages.append(admin_client.post(url(key), asked(key)))

    assert [page.status_code for page in pages] == [200, 200, 200]
    assert [page for page in pages if b"<script>alert(1)" in page.content] == []


# --- The previous secret ends ---------------------------------------------------------------


def retiring(key, **fields):
    previous = APIKeySecret.objects.get(key=key, slot=1)
    return {"confirmed": "1", "seen": previous.public_id, **fields}


def test_retire_ends_the_previous_secret_after_a_confirmation(issued, admin_client, client):
    services.rotate_key(key=issued.key)
    masked = APIKeySecret.objects.get(slot=1).masked

    offered = buttons(admin_client, issued.key)
    page = body(admin_client.get(url(issued.key, "retire")))
    before = client.get("/customers/", headers=bearer(issued.secret)).status_code
    done = admin_client.post(
        url(issued.key, "retire"), retiring(issued.key, reason="Nobody sends it."), follow=True
    )

    answer = client.get("/customers/", headers=bearer(issued.secret))
    assert offered == ["rotate", "retire"]
    assert masked in page
    assert before == 200
    assert done.redirect_chain == [(url(issued.key, "change"), 302)]
    assert told(done) == ["1 previous secret is retired."]
    assert answer.json()["code"] == "retired_secret"
    assert buttons(admin_client, issued.key) == ["rotate"]
    assert [entry.get_change_message() for entry in LogEntry.objects.all()] == [
        "Retired the previous secret."
    ]
    event = APIKeyEvent.objects.get(type="retired")
    assert (event.reason, event.actor_name) == ("Nobody sends it.", "admin")


def test_the_page_sends_back_which_secret_it_showed(rotated, admin_client):
    page = body(admin_client.get(url(rotated, "retire")))

    seen = re.findall(r'name="seen" value="(\w+)"', page)

    assert seen == [APIKeySecret.objects.get(slot=1).public_id]


def test_a_secret_that_became_the_previous_one_since_is_left_alone(rotated, admin_client):
    """Somebody else has rotated: the one in use has taken the place of the one that was shown."""
    fields = retiring(rotated)
    APIKeySecret.objects.filter(slot=0).update(first_used_at=MOMENT)
    services.rotate_key(key=rotated)

    response = admin_client.post(url(rotated, "retire"), fields, follow=True)

    assert told(response) == [f"1 key stays as it is: {ANOTHER}"]
    assert APIKeySecret.objects.filter(slot=1).count() == 1
    assert LogEntry.objects.count() == 0


def test_a_second_retirement_is_told_that_there_is_nothing(rotated, admin_client):
    fields = retiring(rotated)
    admin_client.post(url(rotated, "retire"), fields)

    response = admin_client.post(url(rotated, "retire"), fields, follow=True)

    assert told(response)[-1] == "1 key stays as it is: This key has no previous secret."
    assert APIKeyEvent.objects.filter(type="retired").count() == 1


def test_a_retirement_that_another_has_made_at_the_same_moment_is_told(
    rotated, admin_client, monkeypatch
):
    """It was there when the form was looked at; under the lock it is not."""
    retire_secret = services.retire_secret

    def retire_after_another(**fields):
        retire_secret(key=APIKey.objects.get(pk=rotated.pk))
        return retire_secret(**fields)

    monkeypatch.setattr(services, "retire_secret", retire_after_another)

    response = admin_client.post(url(rotated, "retire"), retiring(rotated), follow=True)

    assert told(response) == ["1 key stays as it is: This key has no previous secret."]
    assert APIKeyEvent.objects.filter(type="retired").count() == 1


def test_a_revoked_key_offers_neither(rotated, admin_client):
    services.revoke_key(key=rotated)

    assert buttons(admin_client, rotated) == []
