"""The list: what a row says, what it can be narrowed and sorted by, and what it costs."""

import re
from datetime import UTC, datetime, timedelta
from html import unescape

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_apikeys import services
from django_apikeys.models import (
    APIKey,
    APIKeySecret,
    APIKeyTotals,
    APIKeyUsage,
    OwnerQuota,
)
from django_apikeys.web import owners, pages
from tests.factories import APIKeyFactory, UserFactory
from tests.web.policies import FreePolicy, ManyPolicy, use
from tests.web.typed import LIST, url


def text(browser, query=""):
    return unescape(browser.get(LIST + query).content.decode())


def names(browser, query=""):
    """Return the names of the rows, in their order."""
    return re.findall(
        r'<th scope="row".*?<a href="[^"]+"[^>]*>([^<]+)</a>', text(browser, query), re.DOTALL
    )


def row(browser, key):
    found = re.search(rf"<tr [^>]*{key.pk}.*?</tr>", browser.get(LIST).content.decode(), re.DOTALL)
    return " ".join(
        re.sub(r"<svg.*?</svg>|<[^>]+>", " ", unescape(found[0]), flags=re.DOTALL).split()
    )


def used(key, count, at=None, address="203.0.113.9"):
    at = at or timezone.now()
    APIKeyTotals.objects.create(key=key, requests=count, last_used_at=at, last_used_ip=address)
    hour = at.replace(minute=0, second=0, microsecond=0)
    APIKeyUsage.objects.create(
        key_id=key.pk, starts_at=hour, route="/", method="GET", outcome="2xx", requests=count
    )


def test_a_row_says_what_a_key_is(browser, issue, user):
    now = timezone.now()
    key = issue(
        name="Reporting",
        description="For the board",
        scopes=["customers:read", "customers:write", "jobs:read", "jobs:write"],
        rate_limit="300/m",
        expires_at=now + timedelta(days=10, hours=1),
    ).key
    APIKey.objects.filter(pk=key.pk).update(created_at=now - timedelta(days=3))
    used(key, 1234, at=now - timedelta(minutes=3, seconds=5))

    said = row(browser, key)

    assert said == (
        f"Reporting For the board Active {key.masked} Public id "
        f"{key.current_secret.public_id} Copy customers:read customers:write 2 more "
        "300 per minute 1,234 3\xa0minutes ago 3\xa0days ago by ann in 1\xa0week, 3\xa0days"
    ).replace("\xa0", " ")


def test_the_last_use_has_its_exact_time_and_address_in_a_title(browser, issue):
    at = datetime(2026, 5, 3, 10, 12, tzinfo=UTC)
    used(issue().key, 1, at=at)

    page = text(browser)

    assert (
        '<time datetime="2026-05-03T10:12:00+00:00" '
        'title="May 3, 2026, 5:12 a.m. CDT · 203.0.113.9">'
    ) in page


def test_a_key_that_was_never_used_nor_ends_says_so(browser, issue):
    key = issue(scopes=[]).key

    assert row(browser, key).endswith("none 0 never just now by ann never")


def test_the_chart_has_a_bar_for_each_day_with_requests(browser, issue):
    key = issue().key
    now = timezone.now().astimezone(UTC)
    APIKeyUsage.objects.bulk_create(
        APIKeyUsage(
            key_id=key.pk,
            starts_at=now.replace(hour=0, minute=0, second=0, microsecond=0)
            - timedelta(days=days),
            route="/",
            method="GET",
            outcome=outcome,
            requests=requests,
        )
        for days, outcome, requests in [
            (0, "2xx", 4),
            (29, "2xx", 1),
            (29, "5xx", 1),
            (30, "2xx", 9),
        ]
    )

    page = text(browser)

    assert 'aria-label="6 requests in the last 30 days"' in page
    assert re.findall(r'<rect x="(\d+)" y="(\d+)" width="3" height="(\d+)"', page) == [
        ("0", "14", "14"),
        ("116", "0", "28"),
    ]


def test_dead_keys_stay_greyed_out_and_say_what_they_are(browser, user):
    for trait in ("disabled", "expired", "revoked"):
        APIKeyFactory(owner=user, name=trait, **{trait: True})
    APIKeyFactory(owner=user, name="deleted", deleted=True)

    page = text(browser)

    start = r'<tr role="row"( class="apikeys-over")? data-apikeys-key'
    rest = r'.*?<a href="[^"]+"[^>]*>(\w+)</a>.*?apikeys-badge[^>]*>(\w+)<'
    found = re.findall(start + rest, page, re.DOTALL)
    assert sorted(found, key=lambda row: row[1]) == [
        ("", "disabled", "Disabled"),
        (' class="apikeys-over"', "expired", "Expired"),
        (' class="apikeys-over"', "revoked", "Revoked"),
    ]


def test_an_expiry_that_is_near_stands_out(browser, issue):
    issue(expires_at=timezone.now() + timedelta(days=6))

    assert 'class="apikeys-soon"' in text(browser)


def test_a_key_that_was_made_through_another_says_so(browser, user):
    parent = APIKeyFactory(owner=user)
    child = APIKeyFactory(owner=user, created_by_key=parent)

    assert "by another key" in row(browser, child)
    assert " by " not in row(browser, parent)


def test_a_row_without_a_secret_is_shown(browser, user):
    key = APIKeyFactory(owner=user, secret_row=None)
    APIKeySecret.objects.filter(key=key).delete()

    assert key.name in row(browser, key)


# --- Narrowing and sorting --------------------------------------------------------------------


@pytest.fixture
def several(user):
    now = timezone.now()
    rows = [
        APIKeyFactory(
            owner=user, name="alpha", scopes=["jobs:read"], expires_at=now + timedelta(days=9)
        ),
        APIKeyFactory(
            owner=user, name="beta", environment="test", description="a hammer", disabled=True
        ),
        APIKeyFactory(
            owner=user,
            name="gamma",
            scopes=["*"],
            revoked=True,
            expires_at=now + timedelta(days=1),
        ),
    ]
    for number, key in enumerate(rows):
        APIKey.objects.filter(pk=key.pk).update(created_at=now - timedelta(days=number))
    used(rows[1], 5, at=now - timedelta(days=2))
    used(rows[2], 9, at=now - timedelta(days=3))
    return rows


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        pytest.param("", ["alpha", "beta", "gamma"], id="all, newest first"),
        pytest.param("?search=hammer", ["beta"], id="description"),
        pytest.param("?search=nothing", [], id="nothing"),
        pytest.param("?status=revoked", ["gamma"], id="status"),
        pytest.param("?environment=test", ["beta"], id="environment"),
        pytest.param("?scope=jobs:read", ["alpha"], id="scope"),
        pytest.param("?scope=*", ["gamma"], id="wildcard"),
        pytest.param("?status=active&environment=test", [], id="two"),
        pytest.param("?sort=created", ["gamma", "beta", "alpha"], id="oldest first"),
        pytest.param("?sort=-name", ["gamma", "beta", "alpha"], id="name"),
        pytest.param("?sort=-usage", ["gamma", "beta", "alpha"], id="usage"),
        pytest.param("?sort=usage", ["alpha", "beta", "gamma"], id="usage, least"),
        pytest.param("?sort=-last_used", ["beta", "gamma", "alpha"], id="last used"),
        pytest.param("?sort=last_used", ["alpha", "gamma", "beta"], id="last used, oldest"),
        pytest.param("?sort=expires", ["gamma", "alpha", "beta"], id="expires"),
        pytest.param("?sort=-expires", ["beta", "alpha", "gamma"], id="expires last"),
        pytest.param("?owner=1", ["alpha", "beta", "gamma"], id="no choice of owners"),
    ],
)
def test_the_list_is_narrowed_and_sorted(query, expected, browser, several):
    assert names(browser, query) == expected


def test_a_key_is_found_by_its_public_id_and_masked_form(browser, issue):
    key = issue(name="wanted").key
    issue(name="other")

    assert names(browser, f"?search={key.current_secret.public_id}") == ["wanted"]
    assert names(browser, f"?search={key.masked}") == ["wanted"]


def test_a_secret_that_is_pasted_finds_its_key_and_stays_nowhere(browser, issue):
    wanted = issue(name="wanted")
    issue(name="other")
    public_id = wanted.key.current_secret.public_id

    answer = browser.get(LIST, {"search": f" {wanted.secret}", "status": "active"})

    assert answer.status_code == 302
    assert answer["Location"] == f"{LIST}?search={public_id}&status=active"
    assert names(browser, f"?search={public_id}&status=active") == ["wanted"]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("?status=dead", "Select a valid choice. dead is not one of the available choices."),
        ("?environment=staging", "Select a valid choice."),
        ("?scope=no:such", "Select a valid choice."),
        ("?search=" + "x" * 201, "Ensure this value has at most 200 characters"),
        ("?search=%00", "Null characters are not allowed."),
    ],
)
def test_a_filter_that_makes_no_sense_is_said_and_lists_nothing(query, said, browser, several):
    page = text(browser, query)

    assert said in page
    assert "No key is like that." in page


def test_what_was_asked_stays_in_the_form(browser, several):
    page = browser.get(f'{LIST}?search="><b>&status=active').content.decode()

    assert 'value="&quot;&gt;&lt;b&gt;"' in page
    assert '<option value="active" selected>Active</option>' in page
    assert f'<a href="{LIST}">Clear</a>' in page


def test_an_order_that_there_is_not_is_the_usual_one(browser, several):
    """It would leave nothing out, so it hides nothing either."""
    assert names(browser, "?sort=secret") == names(browser)


@pytest.mark.parametrize("left", ["search=", "status=active&search="])
def test_a_secret_that_is_pasted_stays_in_no_url_of_a_login(issued, left):
    answer = Client().get(f"{LIST}?{left}export+API_KEY%3D{issued.secret}")

    public_id = issued.key.current_secret.public_id
    assert answer.status_code == 302
    assert answer["Location"] == f"{LIST}?{left}{public_id}"


def test_a_column_is_sorted_by_its_heading_and_keeps_the_filters(browser, several):
    page = text(browser, "?environment=live&sort=name&page=1")

    assert 'aria-sort="ascending"><a href="?environment=live&sort=-name">Name' in page
    assert '<a href="?environment=live&sort=-usage">Requests' in page


def test_pages_lead_to_one_another_and_keep_the_filters(browser, user, monkeypatch):
    monkeypatch.setattr(pages, "ON_A_PAGE", 2)
    for number in range(5):
        APIKeyFactory(owner=user, name=f"key {number}")

    page = text(browser, "?sort=name&page=2")

    assert names(browser, "?sort=name&page=2") == ["key 2", "key 3"]
    assert 'rel="prev" href="?sort=name&page=1"' in page
    assert 'rel="next" href="?sort=name&page=3"' in page
    assert "Page 2 of 3" in page
    assert names(browser, "?sort=name&page=99") == ["key 4"]


def test_a_table_of_very_many_keys_is_not_counted_to_its_end(browser, user, monkeypatch):
    monkeypatch.setattr(pages, "ON_A_PAGE", 1)
    monkeypatch.setattr("django_apikeys.paging.MOST_LISTED", 2)
    APIKeyFactory.create_batch(3, owner=user)

    assert "Page 1 of 2" in text(browser)


# --- Whose -------------------------------------------------------------------------------------


def test_keys_of_others_are_not_listed(browser):
    APIKeyFactory(name="of another")
    APIKeyFactory(owner=None, name="of the project")

    assert names(browser) == []
    assert names(browser, "?search=of") == []


def test_whoever_sees_several_owners_has_a_column_and_a_filter(browser, settings, user):
    use(settings, ManyPolicy)
    other = UserFactory(username="ben")
    APIKeyFactory(owner=user, name="mine")
    APIKeyFactory(owner=other, name="his")

    page = text(browser)

    assert sorted(names(browser)) == ["his", "mine"]
    assert f'<option value="{other.pk}">ben</option>' in page
    assert '<p class="apikeys-owner">ben</p>' in page
    assert "This month" not in page
    assert names(browser, f"?owner={other.pk}") == ["his"]
    assert "This month" in text(browser, f"?owner={other.pk}")


def test_an_owner_who_may_not_be_seen_is_no_filter(browser, settings):
    use(settings, ManyPolicy)
    UserFactory()
    hidden = UserFactory(username="hidden")
    APIKeyFactory(owner=hidden, name="hidden")

    page = text(browser, f"?owner={hidden.pk}")

    assert "There is no such owner." in page
    assert names(browser, f"?owner={hidden.pk}") == []


def test_of_very_many_owners_one_is_typed(browser, settings, monkeypatch):
    use(settings, ManyPolicy)
    monkeypatch.setattr(owners, "MOST_OWNERS", 1)
    APIKeyFactory()

    assert '<input type="text" name="owner"' in text(browser)


def test_a_superuser_sees_the_keys_of_the_project_too(user, browser):
    user.is_superuser = True
    user.save()
    APIKeyFactory(owner=None, name="shared")

    assert names(browser) == ["shared"]
    assert "The project itself" in text(browser)


# --- The account -------------------------------------------------------------------------------


PLANS = {"free": {"rate": "60/m", "quota": 10_000}}


@pytest.mark.parametrize(("units", "short"), [(7421, False), (9100, True)])
def test_the_meter_says_what_is_used_of_the_plan(units, short, browser, user, settings):
    settings.APIKEYS_PLANS = PLANS
    settings.USE_THOUSAND_SEPARATOR = True  # which is for people, and not for attributes
    use(settings, FreePolicy)
    month = timezone.now().date().replace(day=1)
    OwnerQuota.objects.create(owner_id=str(user.pk), month=month, units=units)

    page = text(browser)

    assert f"<strong>{units:,}</strong> of 10,000 calls used this month" in page
    assert f'max="10000" value="{units}"' in page
    assert ("apikeys-short" in page) is short
    assert "<dd>free</dd>" in page
    assert "<dd>60 per minute</dd>" in page


def test_without_a_plan_the_calls_are_counted(browser, issue):
    month = timezone.now().date().replace(day=1)
    OwnerQuota.objects.create(owner_id=str(issue().key.owner_id), month=month, requests=7)

    page = text(browser)

    assert "<strong>7</strong> calls this month, without a limit" in page
    assert "<meter" not in page


# --- Empty -------------------------------------------------------------------------------------


def test_an_empty_list_says_what_to_do(browser):
    page = text(browser)

    assert "No API keys yet" in page
    assert page.count(f'href="{LIST}new/"') == 2
    assert 'role="search"' not in page


def test_whoever_may_not_create_sees_no_button(browser, settings, monkeypatch, user):
    use(settings, ManyPolicy)
    monkeypatch.setattr(
        ManyPolicy,
        "owners",
        lambda self, person, action: (
            type(user).objects.all() if action == "see" else type(user).objects.none()
        ),
    )

    page = text(browser)

    assert f"{LIST}new/" not in page
    assert "You may look at keys, but not create them" in page


# --- Looks and cost ----------------------------------------------------------------------------


def test_markup_in_a_key_is_shown_as_text(browser, user):
    evil = "<script>alert(1)</script>"
    APIKeyFactory(owner=user, name=evil, description=evil, scopes=[evil, "jobs:read"])

    page = browser.get(LIST).content.decode()

    assert "<script>" not in page
    assert page.count("&lt;script&gt;") == 2


def test_a_stored_list_that_cannot_be_read_is_shown_as_none(browser, user):
    key = APIKeyFactory(owner=user, scopes={"a": 1}, allowed_ips="everywhere", rate_limit="often")

    assert "none often" in row(browser, key)
    assert browser.get(url(key)).status_code == 200


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (1, "1 API key<"),
        (21, "21 API keys<"),
        (25, "25 API keys<"),
        (26, "More than 25 API keys<"),
    ],
)
def test_how_many_there_are_is_said(browser, user, monkeypatch, count, said):
    monkeypatch.setattr("django_apikeys.paging.MOST_LISTED", 25)
    APIKeyFactory.create_batch(count, owner=user)

    assert f"data-apikeys-found>{said}" in text(browser)


def test_how_many_were_found_is_said_of_none_too(browser, issued):
    assert "data-apikeys-found>0 API keys<" in text(browser, "?search=nonesuch")


def queries(browser, path):
    with CaptureQueriesContext(connection) as found:
        assert browser.get(path).status_code == 200
    return len(found)


def test_the_list_costs_ten_queries_however_many_keys_there_are(browser, issue):
    """Session, user, two of owners, count, keys, secrets, usage, two of the account."""
    used(issue().key, 3)
    few = queries(browser, LIST)
    for _ in range(19):
        used(issue().key, 3)

    assert (few, queries(browser, LIST)) == (10, 10)


def test_the_anonymous_are_led_to_the_login():
    answer = Client().get(f"{LIST}?status=active")

    assert (answer.status_code, answer["Location"]) == (
        302,
        "/accounts/login/?next=/page/%3Fstatus%3Dactive",
    )


def test_the_list_of_a_key_that_was_rotated_costs_no_more(browser, issue):
    used(issue().key, 3)
    before = queries(browser, LIST)
    services.rotate_key(key=APIKey.objects.get())

    assert queries(browser, LIST) == before
