"""The page of one key: what it is, what it was used for, its settings and its history."""

import re
from datetime import UTC, datetime, timedelta
from html import unescape

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
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
)
from django_apikeys.web import pages
from tests.factories import APIKeyFactory, UserFactory
from tests.web.policies import LookingPolicy, ReadingPolicy, use
from tests.web.typed import form_of, submit, ticked, url


def text(answer):
    return unescape(answer.content.decode())


def words(answer):
    """Return the text of a page, without its markup."""
    return " ".join(re.sub(r"<[^>]+>", " ", text(answer)).split())


def used(key, *counts, at=None):
    """Count requests of *key*: pairs of an outcome and a number."""
    hour = (at or timezone.now()).replace(minute=0, second=0, microsecond=0)
    APIKeyUsage.objects.bulk_create(
        APIKeyUsage(
            key_id=key.pk,
            starts_at=hour,
            route="/customers/",
            method="GET",
            outcome=outcome,
            requests=requests,
        )
        for outcome, requests in counts
    )


# --- Usage -------------------------------------------------------------------------------------


def test_the_page_says_what_the_key_is(browser, issue):
    key = issue(
        name="Reporting",
        description="For the board\nof directors",
        environment="test",
        scopes=["customers:read"],
        rate_limit="10/s",
        allowed_ips=["203.0.113.7"],
    ).key

    page = words(browser.get(url(key)))

    assert "Reporting Active" in page
    assert "For the board of directors" in page
    assert f"Public id {key.current_secret.public_id}" in page
    assert "Environment test Scopes customers:read Rate 10 per second" in page
    assert "Addresses 203.0.113.7 Requests 0 · 0 with errors Last used never" in page
    assert "Expires never Secret made just now" in page


def test_a_live_key_that_works_from_everywhere_is_to_be_restricted(browser, issue):
    live, test = issue().key, issue(environment="test").key

    assert f'{url(live, "settings/")}#id_allowed_ips">Restrict it' in text(browser.get(url(live)))
    assert "Restrict it" not in text(browser.get(url(test)))


def test_the_chart_stacks_requests_by_outcome(browser, issue):
    key = issue().key
    used(key, ("2xx", 6), ("5xx", 1), ("refused", 2), ("limited", 1))

    page = browser.get(url(key)).content.decode()

    assert 'role="img" aria-label="10 requests: 30 days"' in page
    assert re.findall(
        r'<rect class="apikeys-outcome-(\w+)" x="580" y="(\d+)" width="15" height="(\d+)"', page
    ) == [
        ("good", "80", "120"),
        ("failed", "60", "20"),
        ("refused", "20", "40"),
        ("limited", "0", "20"),
    ]


def test_the_numbers_of_the_chart_stand_in_a_table_too(browser, issue):
    key = issue().key
    used(key, ("2xx", 1500), ("limited", 1))

    page = words(browser.get(url(key)))

    today = f"{timezone.now().astimezone(UTC):%B} {timezone.now().astimezone(UTC).day}"
    assert f"{today} 1,500 0 0 1 1,501" in page
    assert "Requests 1,501 With errors 1 Refused 0 Limited 1" in page
    assert "GET /customers/ 1,501 1" in page
    assert "2xx 1,500 3xx 0 4xx 1 5xx 0" in page


def test_addresses_are_listed_with_when_they_were_seen(browser, issue):
    key = issue().key
    now = timezone.now()
    APIKeyAddress.objects.create(
        key_id=key.pk,
        address="203.0.113.9",
        first_seen_at=now,
        last_seen_at=now - timedelta(hours=2, seconds=9),
        requests=1200,
    )

    assert "203.0.113.9 1,200 2 hours ago" in words(browser.get(url(key)))


@pytest.mark.parametrize(
    ("span", "bars", "first"),
    [
        ("24h", 24, "24 hours"),
        ("7d", 7, "7 days"),
        ("30d", 30, "30 days"),
        ("12m", 12, "12 months"),
        ("", 30, "30 days"),
        ("forever", 30, "30 days"),
    ],
)
def test_a_span_is_chosen_in_the_url(span, bars, first, browser, issue):
    page = browser.get(url(issue().key), {"span": span}).content.decode()

    assert page.count('class="apikeys-column"') == bars
    assert re.search(r'aria-current="true">([^<]+)<', page)[1] == first
    assert f'aria-label="0 requests: {first}"' in page


def test_a_key_that_was_used_says_when_and_from_where(browser, issue):
    key = issue().key
    APIKeyTotals.objects.create(
        key=key, requests=1234, errors=5, last_used_at=timezone.now(), last_used_ip="203.0.113.9"
    )

    page = words(browser.get(url(key)))

    assert "Requests 1,234 · 5 with errors Last used just now · 203.0.113.9" in page


@pytest.mark.parametrize(
    ("traits", "said"),
    [
        ({"disabled": True}, "Disabled: it is refused until somebody enables it"),
        ({"expired": True}, "A later date in its settings revives it."),
        ({"revoked": True, "revoked_reason": "It leaked."}, "It leaked."),
    ],
)
def test_a_dead_key_says_why(traits, said, browser, user):
    key = APIKeyFactory(owner=user, **traits)

    assert said in words(browser.get(url(key)))


def test_a_revoked_key_says_who_did_it_and_offers_only_to_be_deleted(browser, issue, user):
    key = issue().key
    services.revoke_key(key=key, actor=user)

    answer = browser.get(url(key))

    assert "Revoked by ann, " in words(answer)
    assert offered(answer) == ["delete", "history"]


def offered(answer):
    """Return what the page of a key leads to."""
    found = re.findall(r'href="/page/[0-9a-f-]{36}/(\w+)/["#]', answer.content.decode())
    return sorted(set(found))


def test_an_owner_is_offered_everything(browser, issue):
    key = issue().key
    services.rotate_key(key=key)

    answer = browser.get(url(key))

    assert offered(answer) == ["delete", "history", "retire", "revoke", "rotate", "settings"]


@pytest.mark.parametrize("trait", ["disabled", "expired"])
def test_a_key_that_is_not_active_offers_no_rotation(trait, browser, user):
    key = APIKeyFactory(owner=user, **{trait: True})

    assert "rotate" not in offered(browser.get(url(key)))


def test_whoever_may_only_look_is_offered_nothing(browser, issue, settings):
    use(settings, LookingPolicy)
    key = issue().key
    services.rotate_key(key=key)

    assert offered(browser.get(url(key))) == ["history"]


def test_whoever_may_not_grant_all_its_scopes_is_offered_no_rotation(browser, issue, settings):
    """A new secret would give them more than they have."""
    use(settings, ReadingPolicy)
    key = issue(scopes=["customers:write"]).key

    assert offered(browser.get(url(key))) == ["delete", "history", "revoke", "settings"]


def test_the_old_secret_has_a_meter(browser, issue):
    key = issue().key
    old = key.current_secret
    services.rotate_key(key=key)

    unused = words(browser.get(url(key)))
    APIKeySecretTotals.objects.create(
        secret=old, requests=9, in_grace=1, last_used_at=timezone.now()
    )
    used_once = words(browser.get(url(key)))

    assert "Old secret: 0 uses since the rotation. " in unused
    assert f"{old.masked} · ends in 1 day" in unused
    assert "Old secret: 1 use since the rotation. " in used_once
    assert f"{old.masked} · last used just now · ends in 1 day" in used_once


@pytest.mark.parametrize(
    ("hours_ago", "uses", "safe"),
    [
        pytest.param((1, None, None), 0, False, id="just rotated"),
        pytest.param((1, 1, None), 0, True, id="the new one is used"),
        pytest.param((24, None, None), 0, True, id="a day without a use"),
        pytest.param((25, 2, 1), 3, False, id="still used"),
        pytest.param((50, 49, 24), 3, True, id="not used for a day"),
        pytest.param((50, None, 51), 0, True, id="used before the rotation alone"),
    ],
)
def test_the_old_secret_is_safe_to_retire_once_nobody_needs_it(
    hours_ago, uses, safe, browser, issue
):
    """hours_ago: the rotation, the first use of the new secret, the last use of the old one."""
    key = issue().key
    old = key.current_secret
    services.rotate_key(key=key, grace_seconds=30 * 86400)
    now = timezone.now()
    rotated_at, first_used_at, last_used_at = (
        hours and now - timedelta(hours=hours) for hours in hours_ago
    )
    APIKeySecret.objects.filter(key=key, slot=0).update(
        created_at=rotated_at, first_used_at=first_used_at
    )
    APIKeySecretTotals.objects.create(
        secret=old, requests=9, in_grace=uses, last_used_at=last_used_at
    )

    assert ("Safe to retire." in words(browser.get(url(key)))) is safe


def test_an_old_secret_without_a_new_one_is_not_safe_to_retire(browser, issue):
    key = issue().key
    services.rotate_key(key=key)
    APIKeySecret.objects.filter(key=key, slot=0).delete()

    page = words(browser.get(url(key)))

    assert "Old secret: 0 uses" in page
    assert "Safe to retire." not in page


@pytest.mark.parametrize(
    ("days", "traits", "due"),
    [(89, {}, False), (90, {}, True), (90, {"disabled": True}, False)],
)
def test_it_is_said_when_a_rotation_is_due(days, traits, due, browser, user):
    key = APIKeyFactory(owner=user, **traits)
    APIKeySecret.objects.update(created_at=timezone.now() - timedelta(days=days))

    assert ("rotation is due" in words(browser.get(url(key)))) is due


def test_the_meter_says_that_the_grace_has_not_begun(browser, issue):
    key = issue().key
    services.rotate_key(key=key, starts="first_use")

    assert "it works until the new one is used" in words(browser.get(url(key)))


def queries(browser, path):
    with CaptureQueriesContext(connection) as found:
        assert browser.get(path).status_code == 200
    return len(found)


def test_the_page_of_a_key_costs_eleven_queries_however_many_others_there_are(
    browser, issue, user
):
    """Session, user, key, its secrets, three of usage, and four of what may be done with it."""
    key = issue().key
    few = queries(browser, url(key))
    APIKeyFactory.create_batch(20, owner=user)
    used(key, *[("2xx", 1)])

    assert (few, queries(browser, url(key))) == (11, 11)


# --- Settings ----------------------------------------------------------------------------------


def test_only_what_was_changed_is_written(browser, issue, user):
    """What somebody else has changed since the page was loaded stays."""
    key = issue(name="a key", rate_limit="10/s").key
    loaded = form_of(browser.get(url(key, "settings/")))
    services.update_key(key=key, rate_limit="20/s")

    answer = browser.post(url(key, "settings/"), {**loaded, "name": "Another name"})

    key.refresh_from_db()
    assert (answer.status_code, answer["Location"]) == (302, url(key, "settings/"))
    assert (key.name, key.rate_limit) == ("Another name", "20/s")
    event = APIKeyEvent.objects.first()
    assert (event.type, event.actor_name) == ("updated", "ann")
    assert event.changes == {"name": ["a key", "Another name"]}


def test_a_scope_that_somebody_took_away_is_not_given_back(browser, issue):
    """Who ticks another one in a page from before gives that one, and nothing else."""
    key = issue(scopes=["customers:read", "jobs:write"]).key
    loaded = form_of(browser.get(url(key, "settings/")))
    services.update_key(key=key, scopes=["customers:read"])

    ticked = ["customers:read", "jobs:write", "jobs:read"]
    answer = browser.post(url(key, "settings/"), {**loaded, "scopes": ticked})

    key.refresh_from_db()
    assert answer.status_code == 302
    assert key.scopes == ["customers:read", "jobs:read"]


def test_a_form_without_what_the_page_showed_says_all_of_the_scopes(browser, issue):
    """As a script sends it, which has seen no page."""
    key = issue(scopes=["customers:read", "jobs:write"]).key

    submit(browser, url(key, "settings/"), scopes=["jobs:read"], **{"initial-scopes": None})

    key.refresh_from_db()
    assert key.scopes == ["jobs:read"]


def test_a_scope_that_somebody_gave_meanwhile_is_not_taken_away(browser, issue):
    key = issue(scopes=["customers:read", "jobs:write"]).key
    loaded = form_of(browser.get(url(key, "settings/")))
    services.update_key(key=key, scopes=["customers:read", "jobs:write", "jobs:read"])

    browser.post(url(key, "settings/"), {**loaded, "scopes": ["customers:read"]})

    key.refresh_from_db()
    assert key.scopes == ["customers:read", "jobs:read"]


@pytest.mark.parametrize(
    ("name", "before", "meanwhile", "typed"),
    [
        ("name", "a key", "b key", "c key"),
        ("allowed_ips", [], ["10.0.0.1"], "0.0.0.0/0"),
        ("rate_limit", "1/s", "2/s", "3/s"),
    ],
)
def test_what_two_change_at_once_is_asked_again(*, browser, issue, name, before, meanwhile, typed):
    key = issue(**{"name": "a key", name: before}).key
    loaded = form_of(browser.get(url(key, "settings/")))
    services.update_key(key=key, **{name: meanwhile})

    answer = browser.post(url(key, "settings/"), {**loaded, name: typed})

    key.refresh_from_db()
    assert answer.status_code == 200
    assert "Somebody has changed this since the page was opened: load it again." in words(answer)
    assert getattr(key, name) == meanwhile


def test_each_setting_can_be_changed(browser, issue):
    key = issue(scopes=["customers:read"]).key

    answer = submit(
        browser,
        url(key, "settings/"),
        name="New",
        description="One\r\nTwo",
        scopes=["jobs:read"],
        allowed_ips="203.0.113.7",
        rate_limit="10/s",
        expires_at="2040-01-31T12:00:00",
        enabled=None,
    )
    shown = words(browser.get(answer["Location"]))

    key.refresh_from_db()
    assert (key.name, key.description, key.scopes) == ("New", "One\nTwo", ["jobs:read"])
    assert (key.allowed_ips, key.rate_limit) == (["203.0.113.7"], "10/s")
    assert (key.expires_at.year, key.enabled) == (2040, False)
    assert "The changes are saved." in shown


def test_a_form_that_nobody_touched_writes_nothing(browser, issue):
    key = issue(scopes=["customers:read"], expires_at=timezone.now() + timedelta(days=9)).key

    submit(browser, url(key, "settings/"))

    assert [event.type for event in APIKeyEvent.objects.all()] == ["created"]


def test_wrong_settings_keep_what_was_typed_and_the_page_shows_what_is(browser, issue):
    key = issue(name="Reporting").key

    answer = submit(browser, url(key, "settings/"), name="Renamed", rate_limit="often")

    key.refresh_from_db()
    again = form_of(answer)
    assert answer.status_code == 200
    assert (again["name"], again["rate_limit"]) == ("Renamed", "often")
    assert "<title>Reporting</title>" in text(answer)
    assert "A rate is a number" in text(answer)
    assert key.name == "Reporting"


def test_scopes_that_may_not_be_granted_stay_and_no_others_are_offered(browser, issue, settings):
    use(settings, ReadingPolicy)
    key = issue(scopes=["customers:write"]).key

    page = browser.get(url(key, "settings/"))
    submit(browser, url(key, "settings/"), name="Renamed")

    key.refresh_from_db()
    offered_scopes = re.findall(r'type="checkbox" name="scopes" value="([^"]+)"', text(page))
    assert offered_scopes == [
        "customers:read",
        "customers:write",
        "jobs:read",
        "jobs:write",
        "jobs:*",
    ]
    assert ticked(page) == ["customers:write"]
    assert (key.name, key.scopes) == ("Renamed", ["customers:write"])


def test_a_key_that_may_not_go_further_is_refused_beside_its_field(browser, issue, settings):
    use(settings, ReadingPolicy)
    key = issue(scopes=["customers:write"], enabled=False).key

    answer = submit(browser, url(key, "settings/"), enabled="on")

    key.refresh_from_db()
    assert answer.status_code == 200
    assert "This is more than you may give to an API key: scopes (customers:write)." in text(
        answer
    )
    assert key.enabled is False


def test_a_scope_that_is_no_longer_known_can_be_taken_away(browser, user):
    key = APIKeyFactory(owner=user, scopes=["old:read", "jobs:read"])

    page = browser.get(url(key, "settings/"))
    submit(browser, url(key, "settings/"), scopes=["jobs:read"])

    key.refresh_from_db()
    assert "No longer known; untick it to change the others" in text(page)
    assert key.scopes == ["jobs:read"]


def test_the_settings_of_a_key_that_is_revoked_meanwhile_are_not_saved(browser, issue):
    key = issue().key
    loaded = form_of(browser.get(url(key, "settings/")))
    services.revoke_key(key=key)

    answer = browser.post(url(key, "settings/"), {**loaded, "name": "Late"})

    assert answer.status_code == 409
    assert "This key is revoked, for good." in text(answer)
    assert browser.get(url(key, "settings/")).status_code == 409


def test_fields_that_the_settings_do_not_have_are_not_stored(browser, issue, user):
    key = issue().key

    submit(
        browser,
        url(key, "settings/"),
        metadata='{"a": 1}',
        environment="test",
        owner=str(UserFactory().pk),
        revoked_at="2026-01-01",
        created_by="",
    )

    key.refresh_from_db()
    assert (key.metadata, key.environment, key.owner) == ({}, "live", user)
    assert (key.revoked_at, key.created_by) == (None, user)


# --- History -----------------------------------------------------------------------------------


def history(browser, key, query=""):
    """Return what the audit trail says, a text for each event, the newest first."""
    page = text(browser.get(url(key, "history/") + query))
    events = re.findall(r"<ol .*?</ol>", page, re.DOTALL)[0].split("<li>\n")[1:]
    return [" ".join(re.sub(r"<[^>]+>", " ", event).split()) for event in events]


def test_the_audit_trail_is_in_words(browser, issue, user):
    key = issue(name="Old", scopes=["jobs:read"], expires_at=None).key
    ann = Actor("user", id=str(user.pk), name="ann", address="203.0.113.9", user=user)
    services.update_key(
        key=key,
        actor=ann,
        name="New",
        scopes=["customers:read"],
        rate_limit="10/s",
        expires_at=datetime(2040, 1, 31, 12, tzinfo=UTC),
    )
    services.update_key(key=key, actor=ann, enabled=False)
    services.update_key(key=key, actor=ann, enabled=True)
    services.rotate_key(key=key, actor=ann, reason="Quarterly")
    services.retire_secret(key=key, actor=ann)
    services.rotate_key(key=key, actor=ann, compromised=True)
    services.revoke_key(key=key, actor=ann, reason="Not needed")

    said = [re.sub(r"\d+ \w+, \d\d:\d\d", "NOW", event) for event in history(browser, key)]

    assert said == [
        "ann revoked this key · NOW · 203.0.113.9 Not needed",
        "ann replaced the secret, which had leaked · NOW · 203.0.113.9",
        "ann ended the previous secret · NOW · 203.0.113.9",
        "ann rotated the secret · NOW · 203.0.113.9 Quarterly",
        "ann enabled this key · NOW · 203.0.113.9",
        "ann disabled this key · NOW · 203.0.113.9",
        (
            "ann changed this key · NOW · 203.0.113.9 name: Old → New "
            "scopes: added customers:read; removed jobs:read rate limit: none → 10/s "
            "expires at: never → Jan. 31, 2040, 6 a.m."
        ),
        "ann created this key · NOW",
    ]


def test_a_retired_secret_that_comes_back_is_told(browser, issue):
    key = issue().key
    old = key.current_secret
    services.rotate_key(key=key, grace_seconds=0)
    services.note_reuse(
        APIKeySecret.objects.get(public_id=old.public_id).pk, timezone.now(), address="192.0.2.1"
    )

    assert history(browser, key)[0].startswith("A secret that has ended was used · ")
    assert history(browser, key)[0].endswith(" · 192.0.2.1")


def test_the_audit_trail_has_pages(browser, issue, monkeypatch):
    monkeypatch.setattr(pages, "ON_A_PAGE", 2)
    key = issue(name="0").key
    for number in range(1, 4):
        services.update_key(key=key, name=str(number))

    assert len(history(browser, key)) == 2
    assert history(browser, key, "?page=2")[1].startswith("ann created this key")
    assert 'rel="prev" href="?page=1"' in text(browser.get(url(key, "history/") + "?page=2"))


def test_events_of_other_keys_are_not_told(browser, issue):
    key = issue().key
    services.revoke_key(key=issue().key)

    assert len(history(browser, key)) == 1


def test_markup_in_events_is_shown_as_text(browser, issue):
    evil = "<script>alert(1)</script>"
    key = issue(name=evil).key
    services.update_key(key=key, actor=Actor("user", name=evil), name=f"{evil}!")
    services.revoke_key(key=key, reason=evil)

    for page in ("", "history/"):
        assert "<script>" not in browser.get(url(key, page)).content.decode()


def test_long_texts_are_shown_whole(browser, issue):
    key = issue(name="n" * 100, description="d" * 1000, scopes=["jobs:read"]).key
    services.revoke_key(key=key, reason="r" * 500)

    page = text(browser.get(url(key)))

    assert ("n" * 100 in page, "d" * 1000 in page, "r" * 500 in page) == (True, True, True)


def test_a_deleted_key_has_no_page(browser, issue):
    key = issue().key
    services.delete_key(key=key)

    found = [browser.get(url(key, page)).status_code for page in ("", "settings/", "history/")]

    assert found == [404, 404, 404]
    assert APIKey.objects.filter(pk=key.pk).exists()
