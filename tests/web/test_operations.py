"""Rotate, retire, revoke, delete: each asks first, and says what will stop working."""

import re
from datetime import timedelta
from html import unescape

import pytest
from django.contrib.sessions.models import Session
from django.utils import timezone

from django_apikeys import services
from django_apikeys.models import (
    APIKey,
    APIKeyAddress,
    APIKeyEvent,
    APIKeySecret,
    APIKeySecretTotals,
    APIKeyTotals,
    APIKeyUsage,
)
from tests.conftest import bearer
from tests.factories import APIKeyFactory, UserFactory
from tests.web.policies import NoRevokingPolicy, OwnEndsPolicy, use
from tests.web.typed import LIST, SECRET, form_of, secret_in, submit, url


def words(answer):
    return " ".join(re.sub(r"<[^>]+>", " ", unescape(answer.content.decode())).split())


def status_of(client, secret):
    return client.get("/api/keys/self/", headers=bearer(secret)).status_code


# --- Rotation ----------------------------------------------------------------------------------


def test_it_is_asked_first_why(browser, issued):
    page = browser.get(url(issued.key, "rotate/"))
    answer = browser.post(url(issued.key, "rotate/"), {"why": "boredom"})

    for asked in (page, answer):
        assert 'href="?why=planned"' in asked.content.decode()
        assert 'href="?why=leaked"' in asked.content.decode()
    assert APIKeySecret.objects.count() == 1


def test_a_planned_rotation_shows_the_new_secret_and_lets_the_old_one_live(
    browser, issued, client
):
    path = url(issued.key, "rotate/")

    answer = submit(browser, path, page=f"{path}?why=planned", reason="Quarterly")

    new = secret_in(answer)
    event = APIKeyEvent.objects.first()
    assert "no-store" in answer["Cache-Control"]
    assert "The old secret works until " in words(answer)
    assert (status_of(client, new), status_of(client, issued.secret)) == (200, 200)
    assert (event.type, event.reason, event.actor_name) == ("rotated", "Quarterly", "ann")
    assert event.changes["grace_seconds"] == [None, 86400]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ({"starts": "first_use"}, "The old secret works until the new one is used"),
        ({"grace_seconds": "0"}, "Every earlier secret of this key has ended."),
    ],
)
def test_the_answer_says_what_becomes_of_the_old_secret(typed, said, browser, issued):
    path = url(issued.key, "rotate/")

    assert said in words(submit(browser, path, page=f"{path}?why=planned", **typed))


def test_a_second_rotation_says_that_one_secret_ends_at_once(browser, issued):
    services.rotate_key(key=issued.key)

    page = words(browser.get(url(issued.key, "rotate/") + "?why=planned"))

    assert "of the two that there are now one ends at once" in page


@pytest.mark.parametrize(
    "typed",
    [
        {"grace_seconds": "7"},
        {"grace_seconds": "soon"},
        {"starts": "later"},
        {"reason": "x" * 501},
        {"reason": "a\x07b"},
        {"current": "x" * 65},
    ],
)
def test_what_makes_no_sense_is_said_and_rotates_nothing(typed, browser, issued):
    path = url(issued.key, "rotate/")

    answer = submit(browser, path, page=f"{path}?why=planned", **typed)

    assert answer.status_code == 200
    assert "errorlist" in answer.content.decode()
    assert APIKeySecret.objects.count() == 1


def test_the_same_form_sent_again_rotates_nothing_and_shows_no_secret(browser, issued):
    path = url(issued.key, "rotate/")
    filled = form_of(browser.get(f"{path}?why=planned"))
    browser.post(path, filled)

    again = browser.post(path, filled)

    assert again.status_code == 409
    assert not SECRET.search(again.content.decode())
    assert "The secret of this key is another by now" in words(again)
    assert f'href="{url(issued.key)}"' in again.content.decode()
    assert APIKeySecret.objects.count() == 2


def test_the_new_secret_stands_nowhere_else(browser, issued):
    path = url(issued.key, "rotate/")
    answer = submit(browser, path, page=f"{path}?why=planned")
    secret = secret_in(answer)
    later = [browser.get(page) for page in (LIST, path, url(issued.key, "history/"))]

    assert not any(secret in page.content.decode() for page in later)
    assert not any(secret in str(session.get_decoded()) for session in Session.objects.all())
    assert not any(secret in cookie.OutputString() for cookie in browser.cookies.values())


@pytest.mark.parametrize("why", ["", "?why=planned", "?why=leaked"])
@pytest.mark.parametrize("trait", ["disabled", "expired", "revoked"])
def test_a_key_that_is_not_active_is_not_rotated(trait, why, browser, user):
    key = APIKeyFactory(owner=user, **{trait: True})

    asked = browser.get(url(key, "rotate/") + why)
    sent = browser.post(
        url(key, "rotate/"), {"why": "planned", "grace_seconds": "0", "starts": "now"}
    )

    assert (asked.status_code, sent.status_code) == (409, 409)
    assert APIKeySecret.objects.count() == 1


def test_a_key_that_has_lost_its_secret_gets_a_new_one(browser, user):
    key = APIKeyFactory(owner=user)
    APIKeySecret.objects.all().delete()
    path = url(key, "rotate/")

    assert secret_in(submit(browser, path, page=f"{path}?why=planned"))


# --- A leak ------------------------------------------------------------------------------------


def test_a_leak_shows_where_the_key_was_used_and_what_was_made_through_it(browser, issued, user):
    now = timezone.now()
    for number, address in enumerate(["203.0.113.9", "192.0.2.1"]):
        APIKeyAddress.objects.create(
            key_id=issued.key.pk,
            address=address,
            first_seen_at=now,
            last_seen_at=now - timedelta(hours=2 - number, seconds=9),
            requests=7,
        )
    APIKeyFactory(owner=user, created_by_key=issued.key, name="child")
    APIKeyFactory(owner=user, created_by_key=issued.key, name="dead", revoked=True)

    page = browser.get(url(issued.key, "rotate/") + "?why=leaked")

    assert "192.0.2.1 7 1 hour ago 203.0.113.9 7 2 hours ago" in words(page)
    assert "Live keys that were made through it child ·" in words(page)
    assert form_of(page)["cascade"] == "on"


def test_a_leak_of_a_key_that_nobody_used_says_so(browser, issued):
    page = browser.get(url(issued.key, "rotate/") + "?why=leaked")

    assert "it was used from no address that is known" in words(page)
    assert 'name="cascade"' not in page.content.decode()


def test_after_a_leak_every_earlier_secret_has_ended(browser, issued, client):
    """And what was made through the key is revoked, to the last."""
    older = services.rotate_key(key=issued.key).secret
    child = services.create_key(owner=issued.key.owner, name="child").key
    grandchild = services.create_key(owner=issued.key.owner, name="grandchild").key
    APIKey.objects.filter(pk=child.pk).update(created_by_key=issued.key)
    APIKey.objects.filter(pk=grandchild.pk).update(created_by_key=child)
    path = url(issued.key, "rotate/")

    answer = submit(browser, path, page=f"{path}?why=leaked", reason="In a gist")

    new = secret_in(answer)
    assert [status_of(client, secret) for secret in (issued.secret, older, new)] == [401, 401, 200]
    said = words(answer)
    assert "2 keys that were made through it are revoked. child, grandchild" in said
    dead = APIKey.objects.filter(revoked_at__isnull=False).order_by("name")
    assert [(key.name, key.revoked_reason) for key in dead] == [
        ("child", "In a gist"),
        ("grandchild", "In a gist"),
    ]


def test_after_a_leak_none_is_left_however_many_and_whatever_lies_between(browser, issued, user):
    """The page shows fifty, and says how many more there are."""
    APIKeyFactory.create_batch(60, owner=user, created_by_key=issued.key)
    dead = APIKeyFactory(owner=user, created_by_key=issued.key, revoked=True)
    APIKeyFactory(owner=user, created_by_key=dead, name="through a dead one")
    path = url(issued.key, "rotate/")

    shown = words(browser.get(f"{path}?why=leaked"))
    answer = submit(browser, path, page=f"{path}?why=leaked")

    assert "and 11 more" in shown
    assert "61 keys that were made through it are revoked." in words(answer)
    assert APIKey.objects.filter(revoked_at=None).exclude(pk=issued.key.pk).count() == 0


def test_what_was_made_through_it_is_left_where_that_is_not_ticked(browser, issued, user):
    child = APIKeyFactory(owner=user, created_by_key=issued.key)
    path = url(issued.key, "rotate/")

    submit(browser, path, page=f"{path}?why=leaked", cascade=None)

    child.refresh_from_db()
    assert child.revoked_at is None


def test_whoever_may_not_revoke_is_not_offered_to(browser, issued, settings, user):
    """And who sends it all the same is told what stays."""
    use(settings, NoRevokingPolicy)
    child = APIKeyFactory(owner=user, created_by_key=issued.key, name="child")
    path = url(issued.key, "rotate/")

    page = browser.get(f"{path}?why=leaked")
    answer = submit(browser, path, page=f"{path}?why=leaked", cascade="on")

    child.refresh_from_db()
    assert 'name="cascade"' not in page.content.decode()
    assert secret_in(answer)
    assert "1 key that was made through it is not revoked, since you may not. child" in words(
        answer
    )
    assert child.revoked_at is None


def test_of_keys_of_several_owners_each_is_asked(browser, issued, settings, user):
    use(settings, OwnEndsPolicy)
    own = APIKeyFactory(owner=user, created_by_key=issued.key, name="own")
    other = APIKeyFactory(owner=UserFactory(), created_by_key=issued.key, name="other")
    path = url(issued.key, "rotate/")

    answer = submit(browser, path, page=f"{path}?why=leaked")

    for key in (own, other):
        key.refresh_from_db()
    assert (own.revoked_at is None, other.revoked_at is None) == (False, True)
    assert "1 key that was made through it is revoked. own" in words(answer)
    assert "1 key that was made through it is not revoked, since you may not. other" in words(
        answer
    )


# --- Retire ------------------------------------------------------------------------------------


def test_the_old_secret_is_retired_after_a_confirmation(browser, issued, client):
    old = issued.key.current_secret
    new = services.rotate_key(key=issued.key).secret
    APIKeySecretTotals.objects.create(secret=old, in_grace=2, last_used_at=timezone.now())
    path = url(issued.key, "retire/")

    page = browser.get(path)
    still = status_of(client, issued.secret)
    answer = submit(browser, path, reason="Changed over")
    after = browser.get(answer["Location"])

    assert f"Every program that still sends {old.masked} is refused" in words(page)
    assert "2 uses since the rotation Last used just now" in words(page)
    assert (still, status_of(client, issued.secret), status_of(client, new)) == (200, 401, 200)
    assert (answer.status_code, answer["Location"]) == (302, url(issued.key))
    assert "The old secret is retired." in words(after)
    assert APIKeyEvent.objects.get(type="retired").reason == "Changed over"


def test_a_page_that_is_out_of_date_retires_nothing(browser, issued, client):
    first = services.rotate_key(key=issued.key)
    path = url(issued.key, "retire/")
    shown = form_of(browser.get(path))
    status_of(client, first.secret)
    services.rotate_key(key=first.key)

    answer = browser.post(path, shown)

    assert answer.status_code == 409
    assert "The secret of this key is another by now" in words(answer)
    assert status_of(client, first.secret) == 200


def test_without_an_old_secret_there_is_nothing_to_retire(browser, issued):
    asked = browser.get(url(issued.key, "retire/"))
    sent = browser.post(url(issued.key, "retire/"))

    assert (asked.status_code, sent.status_code) == (409, 409)
    assert "This key has no previous secret." in words(sent)


# --- Revoke and delete -------------------------------------------------------------------------


def test_what_will_stop_working_is_said(browser, issued, user):
    now = timezone.now()
    APIKeyTotals.objects.create(
        key=issued.key, requests=9, last_used_at=now, last_used_ip="203.0.113.9"
    )
    for days, requests in ((0, 5), (2, 4)):
        APIKeyUsage.objects.create(
            key_id=issued.key.pk,
            starts_at=now.replace(minute=0, second=0, microsecond=0) - timedelta(days=days),
            route="/",
            method="GET",
            outcome="2xx",
            requests=requests,
        )
    APIKeyFactory(owner=user, created_by_key=issued.key)

    pages = [words(browser.get(url(issued.key, page))) for page in ("revoke/", "delete/")]

    for page in pages:
        assert (
            "Last used just now · 203.0.113.9 5 requests in the last 24 hours "
            "1 live key was made directly through it"
        ) in page


def test_of_a_key_that_nobody_uses_it_says_so(browser, issued):
    page = words(browser.get(url(issued.key, "revoke/")))

    assert "It was never used. 0 requests in the last 24 hours" in page


def test_a_key_is_revoked_after_a_confirmation(browser, issued, client, user):
    path = url(issued.key, "revoke/")

    browser.get(path)
    still = status_of(client, issued.secret)
    answer = submit(browser, path, reason="Not needed")

    issued.key.refresh_from_db()
    assert (still, status_of(client, issued.secret)) == (200, 401)
    assert (answer.status_code, answer["Location"]) == (302, url(issued.key))
    assert (issued.key.revoked_by, issued.key.revoked_reason) == (user, "Not needed")
    assert "The key is revoked." in words(browser.get(answer["Location"]))


@pytest.mark.parametrize("cascade", [True, False])
def test_what_was_made_through_it_is_revoked_where_that_is_ticked(cascade, browser, issued, user):
    child = APIKeyFactory(owner=user, created_by_key=issued.key)

    submit(browser, url(issued.key, "revoke/"), cascade="on" if cascade else None)

    child.refresh_from_db()
    assert (child.revoked_at is not None) is cascade


def test_a_key_is_not_revoked_twice(browser, user):
    key = APIKeyFactory(owner=user, revoked=True)

    asked = browser.get(url(key, "revoke/"))
    sent = browser.post(url(key, "revoke/"))

    assert (asked.status_code, sent.status_code) == (409, 302)
    assert not APIKeyEvent.objects.exists()


def test_a_key_is_deleted_after_a_confirmation(browser, issued, client):
    answer = submit(browser, url(issued.key, "delete/"), reason="Tidying up")
    listed = browser.get(answer["Location"])

    assert (answer.status_code, answer["Location"]) == (302, LIST)
    assert "The key is deleted." in words(listed)
    assert str(issued.key.pk) not in listed.content.decode()
    assert status_of(client, issued.secret) == 401
    assert APIKeyEvent.objects.first().reason == "Tidying up"


def test_a_revoked_key_can_be_deleted(browser, user):
    key = APIKeyFactory(owner=user, revoked=True)

    answer = submit(browser, url(key, "delete/"))

    assert answer["Location"] == LIST
    assert browser.get(url(key)).status_code == 404


@pytest.mark.parametrize("page", ["revoke/", "delete/", "retire/"])
@pytest.mark.parametrize("reason", ["x" * 501, "a\x07b"])
def test_a_reason_that_cannot_be_stored_is_said_and_changes_nothing(page, reason, browser, issued):
    services.rotate_key(key=issued.key)

    answer = submit(browser, url(issued.key, page), reason=reason)

    issued.key.refresh_from_db()
    assert answer.status_code == 200
    assert "errorlist" in answer.content.decode()
    assert issued.key.revoked_at is None
    assert APIKeySecret.objects.filter(slot__isnull=False).count() == 2
