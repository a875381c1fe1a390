"""The list of keys in the admin: narrowed, and however long it is."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_apikeys.models import APIKey, APIKeySecret, APIKeyTotals
from django_apikeys.policy import UserPolicy
from tests.factories import APIKeyFactory, APIKeySecretFactory, UserFactory
from tests.test_admin import LIST

pytestmark = pytest.mark.django_db


class TwiceNamedPolicy(UserPolicy):
    """Whatever is looked for, two owners are found."""

    def find_owner(self, text):
        raise self.owner_model.MultipleObjectsReturned(text)


def ago(days):
    return timezone.now() - timedelta(days=days)


def used(key, days):
    """Let *key* be used last *days* ago, and first some days before."""
    APIKeySecret.objects.filter(key=key).update(first_used_at=ago(days + 10))
    APIKeyTotals.objects.create(key=key, requests=1, last_used_at=ago(days))


def listed(client, **query):
    """Return the names on the page, in alphabetical order."""
    response = client.get(LIST, query)
    assert response.status_code == 200
    return sorted(key.name for key in response.context["cl"].result_list)


STATUSES = ["active", "disabled", "expired", "revoked"]


@pytest.mark.parametrize("status", STATUSES)
def test_by_status(admin_client, status):
    APIKeyFactory(name="active")
    APIKeyFactory(name="disabled", disabled=True)
    APIKeyFactory(name="expired", expired=True)
    APIKeyFactory(name="revoked", revoked=True, disabled=True)

    assert listed(admin_client, status=status) == [status]


def test_by_environment(admin_client):
    APIKeyFactory(name="live")
    APIKeyFactory(name="test", environment="test")

    assert listed(admin_client, environment="test") == ["test"]


EXPIRING = {"7": ["in 6"], "30": ["in 29", "in 6"], "90": ["in 29", "in 6", "in 89"]}


@pytest.mark.parametrize(("days", "names"), EXPIRING.items())
def test_by_the_days_that_an_active_key_has_left(admin_client, days, names):
    for left in (6, 29, 89, 91):
        APIKeyFactory(name=f"in {left}", expires_at=ago(-left))
    APIKeyFactory(name="never")
    APIKeyFactory(name="past", expired=True)
    APIKeyFactory(name="revoked", revoked=True, expires_at=ago(-1))
    APIKeyFactory(name="disabled", disabled=True, expires_at=ago(-1))

    assert listed(admin_client, expiring=days) == names


UNUSED = {
    "never": ["never, new", "never, old"],
    "30": ["100 days ago", "31 days ago", "first 31 days ago", "never, old"],
    "90": ["100 days ago", "never, old"],
}


@pytest.mark.parametrize(("value", "names"), UNUSED.items())
def test_by_use(admin_client, value, names):
    """A key that is younger than the span, or used within it, is not unused for so long."""
    APIKeyFactory(name="never, new")
    APIKeyFactory(name="never, old", created_at=ago(200))
    for days in (1, 31, 100):
        used(APIKeyFactory(name=f"{days} days ago", created_at=ago(200)), days)
    for days in (1, 31):
        # The counters of its use have not been flushed yet.
        key = APIKeyFactory(name=f"first {days} days ago", created_at=ago(89))
        APIKeySecret.objects.filter(key=key).update(first_used_at=ago(days))

    assert listed(admin_client, unused=value) == names


AGES = {"90": ["181", "366", "91"], "180": ["181", "366"], "365": ["366"]}


@pytest.mark.parametrize(("days", "names"), AGES.items())
def test_by_the_age_of_the_current_secret(admin_client, days, names):
    """A key that was rotated is as young as its new secret."""
    for age in (1, 91, 181, 366):
        key = APIKeyFactory(name=str(age), created_at=ago(age))
        APIKeySecret.objects.filter(key=key).update(created_at=ago(age))
    rotated = APIKeyFactory(name="rotated", created_at=ago(400))
    APIKeySecretFactory(key=rotated, slot=1, created_at=ago(400))

    assert listed(admin_client, age=days) == names


@pytest.mark.parametrize("name", ["status", "environment", "expiring", "unused", "age"])
def test_a_value_that_there_is_not_leads_back_to_the_list(admin_client, name):
    key = APIKeyFactory()

    read = admin_client.get(LIST, {name: "nope"})
    sent = admin_client.post(
        f"{LIST}?{name}=nope",
        {"action": "revoke_selected", "_selected_action": [key.pk], "confirmed": "1"},
    )

    assert (read.status_code, read["Location"]) == (302, f"{LIST}?e=1")
    assert (sent.status_code, sent["Location"]) == (302, f"{LIST}?e=1")
    assert APIKey.objects.get().revoked_at is None


def test_filters_and_search_join(admin_client):
    APIKeyFactory(name="Export, live")
    APIKeyFactory(name="Export, dead", revoked=True)
    APIKeyFactory(name="Import, live")

    assert listed(admin_client, status="active", q="Export") == ["Export, live"]


# By owner: there may be a million of them.


@pytest.mark.parametrize("text", ["ann", " ann ", "{pk}"], ids=["name", "with spaces", "id"])
def test_by_owner_as_the_policy_finds_one(admin_client, user, text):
    APIKeyFactory(name="theirs", owner=user)
    APIKeyFactory(name="of another")
    APIKeyFactory(name="of the project", owner=None)

    assert listed(admin_client, owner=text.format(pk=user.pk)) == ["theirs"]


@pytest.mark.parametrize("text", ["nobody", "an\x00n", "9" * 40, "<script>alert(1)</script>"])
def test_an_owner_whom_there_is_not_shows_no_keys_and_says_so(admin_client, user, text):
    APIKeyFactory(owner=user)

    response = admin_client.get(LIST, {"owner": text})

    page = response.content.decode()
    assert "There is no such owner." in page
    assert "<script>alert(1)" not in page
    assert list(response.context["cl"].result_list) == []


def test_a_name_that_two_owners_have_shows_no_keys(admin_client, user, settings):
    settings.APIKEYS_POLICY = "tests.test_admin_filters.TwiceNamedPolicy"
    APIKeyFactory(owner=user)

    assert listed(admin_client, owner="ann") == []


def test_an_empty_owner_is_everybody(admin_client):
    APIKeyFactory(name="a")

    response = admin_client.get(LIST, {"owner": ""})

    assert [key.name for key in response.context["cl"].result_list] == ["a"]
    assert "There is no such owner." not in response.content.decode()


def test_the_box_for_an_owner_keeps_what_else_narrows_the_list(admin_client, user):
    page = admin_client.get(LIST, {"status": "active", "q": "x", "owner": "ann"}).content.decode()
    box = page[page.index('class="apikeys-typed"') :].partition("</form>")[0]

    assert '<input type="hidden" name="status" value="active">' in box
    assert '<input type="hidden" name="q" value="x">' in box
    assert box.count('name="owner"') == 1
    assert 'value="ann"' in box
    assert 'href="?q=x&amp;status=active"' in box


def test_no_owner_is_listed(admin_client):
    """Not in the filter, and not on the form."""
    APIKeyFactory(owner=None)
    UserFactory(username="somebody")

    pages = admin_client.get(LIST).content + admin_client.get(f"{LIST}add/").content

    assert b"somebody" not in pages


# By who made a key.


@pytest.mark.parametrize("text", ["ann", " ann ", "{pk}"], ids=["name", "with spaces", "id"])
def test_by_creator(admin_client, user, text):
    key = APIKeyFactory(name="made by ann", created_by=user)
    APIKeyFactory(name="made through it", created_by_key=key)
    APIKeyFactory(name="of ann", owner=user, created_by=UserFactory())

    assert listed(admin_client, created_by=text.format(pk=user.pk)) == ["made by ann"]


@pytest.mark.parametrize("text", ["nobody", "an\x00n", "9" * 40])
def test_a_creator_whom_there_is_not_shows_no_keys_and_says_so(admin_client, user, text):
    APIKeyFactory(created_by=user)

    response = admin_client.get(LIST, {"created_by": text})

    assert "There is no such user." in response.content.decode()
    assert list(response.context["cl"].result_list) == []


# However many keys there are.


def fill(owner, number):
    keys = APIKey.objects.bulk_create(
        APIKeyFactory.build_batch(number, owner=owner, secret_row=None), batch_size=2000
    )
    APIKeySecret.objects.bulk_create(
        (
            APIKeySecret(
                key=key, prefix="rak", public_id=f"{row:012}", last_four="0000", digest=""
            )
            for row, key in enumerate(keys)
        ),
        batch_size=2000,
    )


QUERIES = {
    "": 6,
    "status=active": 6,
    "environment=live": 6,
    "expiring=90": 4,
    "unused=never": 6,
    "unused=30": 4,
    "age=90": 4,
    "q=key": 6,
    "o=-5": 6,
}


@pytest.mark.parametrize("number", [10, pytest.param(10_500, marks=pytest.mark.large)])
def test_the_list_costs_as_much_for_10_keys_as_for_10_500(admin_client, user, number):
    """Session, user, a count that ends, a page of keys; their secrets, and their requests."""
    fill(user, number)

    found = {}
    for query in QUERIES:
        with CaptureQueriesContext(connection) as statements:
            admin_client.get(f"{LIST}?{query}")
        texts = [statement["sql"] for statement in statements]
        found[query] = len(texts)
        assert ["LIMIT 10001" in text for text in texts if "COUNT(" in text] == [True]

    assert found == QUERIES


def test_the_list_is_read_in_the_order_of_an_index(admin_client):
    with CaptureQueriesContext(connection) as statements:
        admin_client.get(LIST)

    pages = [s["sql"] for s in statements if "ORDER BY" in s["sql"]]
    order = pages[0].partition("ORDER BY")[2].replace('"', "").replace("`", "")
    assert order.split() == [
        "django_apikeys_apikey.created_at",
        "DESC,",
        "django_apikeys_apikey.id",
        "DESC",
    ]


CUT = {"as many": (10, False), "more": (11, True)}


@pytest.mark.parametrize("around", ["{}", " {} ", "export API_KEY={}", "it is '{}'"])
def test_a_secret_that_is_pasted_stays_in_no_url(admin_client, issued, around):
    asked = {"q": around.format(issued.secret), "status": "active"}

    answer = admin_client.get(LIST, asked)

    assert answer.status_code == 302
    assert answer["Location"] == f"{LIST}?q={issued.key.current_secret.public_id}&status=active"


@pytest.mark.parametrize(("number", "is_cut"), CUT.values(), ids=CUT.keys())
def test_a_list_that_goes_on_beyond_its_pages_says_so(admin_client, monkeypatch, number, is_cut):
    monkeypatch.setattr("django_apikeys.paging.MOST_LISTED", 10)
    APIKeyFactory.create_batch(number)

    response = admin_client.get(LIST)

    assert response.context["cl"].result_count == 10
    assert (
        "There are more than 10, and the pages end here." in response.content.decode()
    ) is is_cut


def test_the_last_page_is_reached_and_the_next_is_none(admin_client, monkeypatch):
    monkeypatch.setattr("django_apikeys.paging.MOST_LISTED", 150)
    fill(None, 260)

    last = admin_client.get(LIST, {"p": "6"})
    beyond = admin_client.get(LIST, {"p": "7"})

    assert len(last.context["cl"].result_list) == 25
    assert beyond.status_code == 302


def test_a_key_without_a_name_is_listed_by_its_id(admin_client):
    key = APIKeyFactory(name="")

    assert f'<span class="apikeys-name">{key.pk}</span>' in admin_client.get(LIST).content.decode()


def test_the_list_says_when_a_key_ends_and_was_last_used(admin_client, settings):
    settings.TIME_ZONE = "UTC"
    moment = timezone.now().replace(year=2031, month=5, day=6, hour=1)
    key = APIKeyFactory(expires_at=moment)
    APIKeyTotals.objects.create(key=key, requests=1, last_used_at=moment.replace(year=2026))

    page = admin_client.get(LIST).content.decode()

    assert '<td class="field-expires">May 6, 2031</td>' in page
    assert '<td class="field-last_used">May 6, 2026</td>' in page


def test_a_key_that_never_ends_and_was_never_used(admin_client):
    APIKeyFactory()

    page = admin_client.get(LIST).content.decode()

    assert '<td class="field-expires">never</td>' in page
    assert '<td class="field-last_used">never</td>' in page
