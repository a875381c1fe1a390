"""What keys were used for, in the admin: a row of the list, and the charts of a page."""

import re
from datetime import UTC, timedelta
from html import unescape

import pytest
from django.contrib import admin
from django.db import connection
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_apikeys.admin import APIKeyAdmin
from django_apikeys.models import APIKey, APIKeyAddress
from tests.factories import APIKeyFactory
from tests.test_admin import LIST, signed_in
from tests.traffic import used

CHANGED = {"name": "Another", "scopes": ["customers:read"], "enabled": "on", "metadata": "{}"}


@pytest.fixture
def key(issued):
    return issued.key


def url(key):
    return f"{LIST}{key.pk}/change/"


def text(answer):
    return unescape(answer.content.decode())


def uses(key, **counts):
    for outcome, times in counts.items():
        used(key, timezone.now(), times=times, outcome=outcome.removeprefix("of_"))


# --- The page of a key ----------------------------------------------------------------------


def test_the_chart_stacks_requests_by_outcome(admin_client, key):
    uses(key, of_2xx=6, of_5xx=1, refused=2, limited=1)

    page = text(admin_client.get(url(key)))

    assert 'role="img" aria-label="10 requests: 30 days"' in page
    assert re.findall(
        r'<rect class="apikeys-outcome-(\w+)" x="580" y="(\d+)" width="15" height="(\d+)"', page
    ) == [
        ("good", "80", "120"),
        ("failed", "60", "20"),
        ("refused", "20", "40"),
        ("limited", "0", "20"),
    ]


def test_the_numbers_stand_in_tables_too(admin_client, key):
    uses(key, of_2xx=3, limited=1)
    used(key, timezone.now(), route="a/<b>/", method="POST", outcome="5xx")
    used(key, timezone.now() - timedelta(days=60), times=5)
    APIKeyAddress.objects.create(
        key_id=key.pk,
        address="203.0.113.9",
        first_seen_at=timezone.now(),
        last_seen_at=timezone.now() - timedelta(hours=2, seconds=9),
        requests=1200,
    )

    answer = admin_client.get(url(key))

    today = timezone.now().astimezone(UTC)
    page = re.sub(r"\s+", " ", re.sub(r"</?[a-z][^<>]*>", " ", answer.content.decode()))
    assert f"{today:%B} {today.day} 3 1 0 1 5" in page
    assert "Requests 5 With errors 2 Refused 0 Limited 1" in page
    assert "GET customers/ 4 1" in page
    assert "POST a/&lt;b&gt;/ 1 1" in page
    assert "2xx 3 3xx 0 4xx 1 5xx 1" in page
    assert "203.0.113.9 1,200 2 hours ago" in unescape(page)


@pytest.mark.parametrize(
    ("span", "bars", "said"),
    [
        ("24h", 24, "24 hours"),
        ("7d", 7, "7 days"),
        ("30d", 30, "30 days"),
        ("12m", 12, "12 months"),
        ("forever", 30, "30 days"),
    ],
)
def test_a_span_is_chosen_in_the_url(span, bars, said, admin_client, key):
    page = text(admin_client.get(url(key), {"span": span}))

    assert page.count('class="apikeys-column"') == bars
    assert re.findall(r'aria-current="true">([^<]+)<', page) == [said]


def test_another_span_leads_back_to_the_list_as_it_was_narrowed(admin_client, key):
    page = text(admin_client.get(url(key), {"_changelist_filters": "status=active&o=1"}))

    link = re.search(r'<a href="([^"]+)">7 days</a>', page)[1]
    answer = admin_client.post(url(key) + link.partition("#")[0], CHANGED)

    assert link.endswith("&span=7d#apikeys-usage")
    assert 'id="apikeys-usage"' in page
    assert answer["Location"] == f"{LIST}?status=active&o=1"


def test_a_change_is_stored_whatever_span_is_shown(admin_client, key):
    answer = admin_client.post(f"{url(key)}?span=12m", CHANGED)

    assert answer.status_code == 302
    assert APIKey.objects.get().name == "Another"


def test_who_may_only_view_sees_it_and_who_may_not_does_not(key):
    uses(key, of_2xx=1)

    assert "1 request: 30 days" in text(signed_in("view_apikey").get(url(key)))
    assert signed_in("add_apikey").get(url(key)).status_code == 403


def test_the_form_of_a_new_key_has_no_charts(admin_client):
    assert "apikeys-chart" not in text(admin_client.get(f"{LIST}add/"))


def test_the_page_costs_as_much_whatever_there_is_to_count(admin_client, key):
    with CaptureQueriesContext(connection) as few:
        admin_client.get(url(key))
    for days in range(5):
        used(key, timezone.now() - timedelta(days=days), route=f"route{days}/")
    APIKeyFactory.create_batch(3)

    with CaptureQueriesContext(connection) as many:
        admin_client.get(url(key))

    assert len(many) == len(few)


@pytest.mark.parametrize("page", ["change", "list"])
def test_nothing_on_the_page_is_inline(page, admin_client, key):
    """A Content Security Policy may forbid it."""
    uses(key, of_2xx=1)

    markup = text(admin_client.get(LIST if page == "list" else url(key)))

    assert re.findall(r'<style|\sstyle="|\son\w+="|<script(?![^>]*\ssrc=)', markup) == []


# --- The list -------------------------------------------------------------------------------


def test_a_row_has_the_requests_ever_and_a_bar_for_each_of_30_days(admin_client, key):
    uses(key, of_2xx=3)
    used(key, timezone.now() - timedelta(days=29), times=1)
    used(key, timezone.now() - timedelta(days=60), times=2000)

    page = text(admin_client.get(LIST))

    cell = re.search(r'<td class="field-usage">(.*?)</td>', page, re.DOTALL)[1]
    assert re.sub(r"<[^>]+>", " ", cell).split()[0] == "2,004"
    assert 'role="img" aria-label="4 requests in the last 30 days"' in cell
    assert len(re.findall(r"<rect ", cell)) == 2


def test_each_row_has_its_own(admin_client, key):
    uses(key, of_2xx=3)
    APIKeyFactory(name="Unused")

    page = text(admin_client.get(LIST))

    assert re.findall(r'aria-label="(\d+) requests? in the last 30 days"', page) == ["0", "3"]


def test_an_empty_list_asks_for_none(admin_client):
    with CaptureQueriesContext(connection) as statements:
        answer = admin_client.get(LIST)

    assert answer.status_code == 200
    assert not any("apikeyusage" in statement["sql"] for statement in statements)


def test_a_host_that_has_no_such_column_asks_for_none(admin_user, key):
    class Bare(APIKeyAdmin):
        list_display = ("named", "status")

    request = RequestFactory().get(LIST)
    request.user = admin_user
    with CaptureQueriesContext(connection) as statements:
        answer = Bare(APIKey, admin.site).changelist_view(request).render()

    assert key.masked in text(answer)
    assert not any("apikeyusage" in statement["sql"] for statement in statements)


def test_a_row_tells_key_and_owner_beneath_the_name(admin_client, key):
    APIKeyFactory(name="Nobody's", owner=None)

    page = text(admin_client.get(LIST))

    rows = re.findall(r'<th class="field-named">(.*?)</th>', page, re.DOTALL)
    names = [re.sub(r"<[^>]+>", "", row).split() for row in rows]
    assert names == [
        ["Nobody's", APIKey.objects.get(owner=None).masked],
        ["a", "key", key.masked, "ann"],
    ]
