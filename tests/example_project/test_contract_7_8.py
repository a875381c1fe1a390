"""Usage and limits, sentence by sentence: sections 7 and 8 of the contract, 3's rate headers."""

import re
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from django.apps import apps
from django.core.cache import caches
from django.core.cache.backends.locmem import LocMemCache
from django.core.checks import run_checks
from django.db import OperationalError, connection
from django.db.models import F
from django.test.utils import CaptureQueriesContext
from django.urls import path
from django.utils import timezone
from rest_framework.response import Response
from rest_framework.views import APIView

from django_apikeys import outage, services
from django_apikeys.drf.throttling import APIKeyThrottle
from django_apikeys.models import APIKey, APIKeyTotals, FlushedBatch, OwnerQuota
from django_apikeys.outage import breaker
from django_apikeys.testing import flush_usage, reset_usage
from example_project import urls
from example_project.crm.policy import OrganisationPolicy
from tests.example_project.conftest import Client
from tests.limiting import stopped
from tests.traffic import used, utc

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("counters")]
JOBS = "/api/v1/jobs/"
ACCOUNT = "/api/v1/usage/"
# Ten days and 40 seconds before the month ends.
NOW = utc(2026, 11, 20, 23, 59, 20)
WRITES = re.compile(r"(INSERT|UPDATE|DELETE|REPLACE)\b")
LOCMEM = "django.core.cache.backends.locmem.LocMemCache"


class Answer(APIView):
    """Answers with the status that is asked for."""

    required_scopes = ("jobs:read",)

    def get(self, request, status):
        return Response({}, status=status)


# The project's own, and before what it answers with 404 a view of these tests.
urlpatterns = [path("api/v1/answers/<int:status>/", Answer.as_view()), *urls.urlpatterns]


class GlobexPolicy(OrganisationPolicy):
    """Globex has a rate of its own."""

    def plan_limits(self, owner):
        return {"rate": "2/m"} if owner["slug"] == "globex" else {}


class DeadCache(LocMemCache):
    """A cache that is down; counts how often it was tried."""

    tried = 0

    def add(self, *args, **kwargs):
        type(self).tried += 1
        raise ConnectionError

    get = set = incr = get_many = add


class BreakerClock:
    """Stands for the module ``time`` where a cache that is down is left alone."""

    now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def counters(settings):
    """The views above, and a cache and a recorder that have counted nothing."""
    settings.ROOT_URLCONF = __name__
    settings.CACHES = {
        name: {"BACKEND": LOCMEM, "LOCATION": f"contract-{name}"}
        for name in ("default", "rates", "quotas")
    }
    forget("default", "rates", "quotas")
    reset_usage()
    breaker.reset()
    yield
    reset_usage()
    breaker.reset()


@pytest.fixture
def clock(monkeypatch):
    """The time of rates and months, in seconds: it stands still until a test moves it."""
    clock = stopped(monkeypatch, NOW.timestamp())
    timer = staticmethod(lambda: datetime.fromtimestamp(clock.now, UTC))
    monkeypatch.setattr(APIKeyThrottle, "timer", timer)
    return clock


@pytest.fixture
def free(settings):
    """Give the plan "free" these limits."""

    def free(**fields):
        settings.APIKEYS_PLANS = {"free": fields, "enterprise": {}}

    return free


@pytest.fixture
def of_globex(program, globex):
    """Make a client that sends a key of Globex, which is on the plan "free"."""
    return lambda **fields: program("jobs:read", owner=globex, **fields)


@pytest.fixture
def owner(person, acme):
    """The Owner of Acme."""
    return person("owner", acme)


@pytest.fixture
def dead_cache(settings, monkeypatch):
    """A cache that is down, and the clock of how long it is left alone."""
    settings.CACHES = {"default": {"BACKEND": f"{__name__}.DeadCache"}}
    monkeypatch.setattr(DeadCache, "tried", 0)
    monkeypatch.setattr(outage, "time", BreakerClock())
    return outage.time


def forget(*names):
    """Lose all that these caches hold."""
    for name in names:
        caches[name].clear()


def client_of(issued):
    client = Client()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {issued.secret}")
    return client


def answers(status):
    return f"/api/v1/answers/{status}/"


def statuses(client, times):
    return [client.get(JOBS).status_code for _ in range(times)]


def reason(answer):
    return answer.status_code, answer.json()["error"]["reason"]


def report(owner, issued, **params):
    """Flush, and return the usage of a key as its owner reads it."""
    flush_usage()
    answer = owner.get(f"/api/v1/keys/{issued.key.pk}/usage/", params)
    assert answer.status_code == 200
    return answer.json()["data"]


def writes(call):
    """Return the first word of each statement of *call* that writes."""
    with CaptureQueriesContext(connection) as queries:
        call()
    found = [WRITES.match(query["sql"]) for query in queries]
    return [match.group() for match in found if match]


def findings(**options):
    return {finding.id for finding in run_checks(**options)}


# --- 7. What is counted -------------------------------------------------------------------

NOTHING = {"2xx": 0, "3xx": 0, "4xx": 0, "5xx": 0}
FINE, BAD = {"refused": 0, "limited": 0, "errors": 0}, {"refused": 0, "limited": 0, "errors": 1}


OUTCOMES = {
    "2xx": ({}, answers(200), FINE, "2xx"),
    "3xx": ({}, answers(302), FINE, "3xx"),
    "4xx": ({}, answers(404), BAD, "4xx"),
    "5xx": ({}, answers(500), BAD, "5xx"),
    "scope": ({}, "/api/v1/invoices/", {**BAD, "refused": 1}, "4xx"),
    "address": ({"allowed_ips": ["192.0.2.0/24"]}, JOBS, {**BAD, "refused": 1}, "4xx"),
}


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_requests_are_counted_by_outcome(outcome, owner, issue):
    """Every request … is counted, by outcome: 2xx/3xx, 4xx, 5xx, refused (scope, address)."""
    fields, url, totals, status = OUTCOMES[outcome]
    issued = issue("jobs:read", **fields)

    client_of(issued).get(url)

    body = report(owner, issued)
    assert body["totals"] == {"requests": 1, **totals}
    assert {row["status"]: row["requests"] for row in body["by_status"]} == {**NOTHING, status: 1}


def test_limited_requests_are_counted(owner, issue, clock):
    """Every request … is counted, by outcome: …, limited."""
    issued = issue("jobs:read", rate_limit="1/m")

    statuses(client_of(issued), 3)

    body = report(owner, issued)
    assert body["totals"] == {"requests": 3, "errors": 2, "refused": 0, "limited": 2}


def test_every_request_is_counted(owner, issue):
    """Every request that a key was verified for is counted, whatever its method."""
    issued = issue("jobs:read", "jobs:write")
    client = client_of(issued)

    for method in ("get", "head", "options", "post", "put", "patch", "delete"):
        getattr(client, method)(JOBS)

    body = report(owner, issued)
    assert body["totals"]["requests"] == 7
    assert [row["method"] for row in body["by_route"]] == [
        *("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
    ]


def test_usage_of_a_key(owner, issue):
    """GET keys/{id}/usage/?from=&to= gives totals, series, by_route, by_status, by_ip."""
    issued = issue()
    used(issued.key, utc(2026, 1, 1, 10), 2, address="192.0.2.7")
    used(issued.key, utc(2026, 1, 2, 11), outcome="limited", route="jobs/", method="POST")

    body = report(owner, issued, **{"from": "2026-01-01", "to": "2026-01-03"})

    assert body == {
        "totals": {"requests": 3, "errors": 1, "refused": 0, "limited": 1},
        "series": [
            {
                "start": "2026-01-01T00:00:00Z",
                "requests": 2,
                "errors": 0,
                "refused": 0,
                "limited": 0,
            },
            {
                "start": "2026-01-02T00:00:00Z",
                "requests": 1,
                "errors": 1,
                "refused": 0,
                "limited": 1,
            },
        ],
        "by_route": [
            {"route": "customers/", "method": "GET", "requests": 2, "errors": 0},
            {"route": "jobs/", "method": "POST", "requests": 1, "errors": 1},
        ],
        "by_status": [
            {"status": "2xx", "requests": 2},
            {"status": "3xx", "requests": 0},
            {"status": "4xx", "requests": 1},
            {"status": "5xx", "requests": 0},
        ],
        "by_ip": [
            {
                "ip": "192.0.2.7",
                "first_seen": "2026-01-01T10:00:00Z",
                "last_seen": "2026-01-01T10:00:00Z",
                "requests": 2,
            }
        ],
    }


@pytest.mark.parametrize(
    ("granularity", "starts"),
    [
        ("hour", ["2026-01-31T23:00:00Z", "2026-02-01T00:00:00Z"]),
        ("day", ["2026-01-31T00:00:00Z", "2026-02-01T00:00:00Z"]),
        ("month", ["2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"]),
    ],
)
def test_granularity(granularity, starts, owner, issue):
    """GET keys/{id}/usage/?granularity=hour|day|month."""
    issued = issue()
    used(issued.key, utc(2026, 1, 31, 23, 59), 2)
    used(issued.key, utc(2026, 2, 1))
    span = {"from": "2026-01-31T23:00:00Z", "to": "2026-02-01T01:00:00Z"}

    series = report(owner, issued, granularity=granularity, **span)["series"]

    assert [(row["start"], row["requests"]) for row in series] == [(starts[0], 2), (starts[1], 1)]


def test_default_is_30_days_by_day(owner, issue):
    """The default is 30 days by day, now included."""
    issued = issue("jobs:read")
    today = timezone.now().date()
    client_of(issued).get(JOBS)

    body = report(owner, issued)
    by_hour = report(owner, issued, granularity="hour")

    days = [datetime.fromisoformat(row["start"]) for row in body["series"]]
    assert body["totals"]["requests"] == by_hour["totals"]["requests"] == 1
    assert len(days) == 30
    assert {(after - before).days for before, after in pairwise(days)} == {1}
    # Midnight may have come in between.
    assert days[-1].date() in (today, timezone.now().date())


def test_401_is_not_counted(owner, issue):
    """A 401 is not counted, also where the digest was right."""
    issued = issue("jobs:read")
    client, misspelt = client_of(issued), Client()
    misspelt.credentials(HTTP_AUTHORIZATION=f"Bearer {issued.secret[:-1]}")
    services.revoke_key(key=issued.key)

    refused = [caller.get(JOBS).status_code for caller in (client, misspelt)]

    assert refused == [401, 401]
    assert report(owner, issued)["totals"]["requests"] == 0


def test_route_is_the_pattern(owner, issue):
    """A route is the URL pattern, not the path, so that ids do not multiply rows."""
    issued = issue("jobs:read")
    client = client_of(issued)

    for status in (200, 201, 404):
        client.get(answers(status))

    assert report(owner, issued)["by_route"] == [
        {"route": "api/v1/answers/<int:status>/", "method": "GET", "requests": 3, "errors": 1}
    ]


@pytest.mark.parametrize(
    ("how", "stored"),
    [
        (True, ["192.0.2.77", "2001:db8:1:2::77"]),
        ("network", ["192.0.2.0/24", "2001:db8:1::/48"]),
        (False, []),
    ],
)
def test_addresses_are_stored_as_the_setting_says(how, stored, owner, issue, settings):
    """APIKEYS_STORE_ADDRESSES = True, "network" (/24, /48) or False."""
    settings.APIKEYS_STORE_ADDRESSES = how
    issued = issue("jobs:read")

    for address in ("192.0.2.77", "2001:db8:1:2::77"):
        client_of(issued).get(JOBS, REMOTE_ADDR=address)

    assert [row["ip"] for row in report(owner, issued)["by_ip"]] == stored


# --- 7. What it costs, and what is stored -------------------------------------------------


def test_request_writes_nothing_but_its_first_use(of_globex):
    """But for … a first use, once per secret, a request writes nothing … on its way."""
    client = of_globex(rate_limit="9/m")

    written = [writes(lambda: client.get(JOBS)) for _ in range(3)]

    assert written == [["UPDATE"], [], []]


def test_request_writes_nothing_but_a_rehash(program, settings):
    """But for a rehash, once per secret, a request writes nothing to the database."""
    client = program("jobs:read")
    client.get(JOBS)
    settings.APIKEYS_PEPPERS = {"2026": "a pepper of forty characters or of more."}

    written = [writes(lambda: client.get(JOBS)) for _ in range(3)]

    assert written == [["UPDATE"], [], []]


def test_counters_are_flushed_as_increments(owner, issue):
    """Counters are added up and flushed as increments: another process may add as well."""
    issued = issue("jobs:read")
    client = client_of(issued)

    statuses(client, 2)
    flush_usage()
    APIKeyTotals.objects.update(requests=F("requests") + 10)
    statuses(client, 3)
    flush_usage()

    assert owner.get(f"/api/v1/keys/{issued.key.pk}/").json()["data"]["usage_count"] == 15


def test_flush_is_a_few_statements(issue):
    """A few statements however high the traffic."""
    client = client_of(issue("jobs:read"))
    statuses(client, 1)
    flush_usage()

    statuses(client, 1)
    of_one = writes(flush_usage)
    statuses(client, 30)
    of_thirty = writes(flush_usage)

    # Its id, the key, the secret, the hour, the address and the owner's month.
    assert of_one == of_thirty == ["INSERT"] * 6


def test_what_could_not_be_flushed_is_tried_again(owner, issue):
    """What could not be flushed is kept and tried again, under an id of its own transaction."""
    issued = issue("jobs:read")

    def full(execute, sql, params, many, context):
        if "apikeyaddress" in sql:  # the last that is written
            raise OperationalError
        return execute(sql, params, many, context)

    client_of(issued).get(JOBS)
    with connection.execute_wrapper(full), pytest.raises(OperationalError):
        flush_usage()
    stored_by_half = [FlushedBatch.objects.count(), APIKeyTotals.objects.count()]

    assert stored_by_half == [0, 0]
    assert report(owner, issued)["totals"]["requests"] == 1
    assert FlushedBatch.objects.count() == 1
    assert report(owner, issued)["totals"]["requests"] == 1


def test_key_that_is_gone_holds_up_no_others(owner, issue):
    """Counts of a key that is gone hold up no others."""
    gone, other = issue("jobs:read"), issue("jobs:read")
    for issued in (gone, other):
        client_of(issued).get(JOBS)
    APIKey.objects.filter(pk=gone.key.pk).delete()

    assert report(owner, other)["totals"]["requests"] == 1


# --- 8. Plans -----------------------------------------------------------------------------


def test_no_limits_by_default(of_globex, settings):
    """APIKEYS_PLANS (default {}: no limits)."""
    client = of_globex()
    with_plans = client.get(JOBS)
    del settings.APIKEYS_PLANS

    without = client.get(JOBS)

    assert with_plans.has_header("RateLimit")
    assert without.status_code == 200
    assert not without.has_header("RateLimit")


@pytest.mark.parametrize(
    ("plan", "policy"),
    [
        ("free", '"plan";q=60;w=60, "quota";q=10000'),
        ("pro", '"plan";q=300;w=60, "quota";q=100000'),
        ("enterprise", None),
    ],
)
def test_policy_names_the_plan(plan, policy, program, factories):
    """The policy names an owner's plan; APIKEYS_PLANS says what it allows."""
    organisation = factories.OrganisationFactory.create(plan=plan)

    answer = program("jobs:read", owner=organisation).get(JOBS)

    assert answer.headers.get("RateLimit-Policy") == policy


def test_free_plan_of_60_a_minute(of_globex, clock):
    """… {"free": {"rate": "60/m", …}}: the 61st request in a minute is 429."""
    client = of_globex()

    assert statuses(client, 60) == [200] * 60
    assert reason(client.get(JOBS)) == (429, "rate_limited")


def test_policy_may_override_one_owner(of_globex, program, factories, settings):
    """The policy … may override it for one owner."""
    settings.APIKEYS_POLICY = f"{__name__}.GlobexPolicy"
    initech = factories.OrganisationFactory.create(plan="free")

    of_one = of_globex().get(JOBS)
    of_another = program("jobs:read", owner=initech).get(JOBS)

    assert of_one.headers["RateLimit-Policy"] == '"plan";q=2;w=60, "quota";q=10000'
    assert of_another.headers["RateLimit-Policy"] == '"plan";q=60;w=60, "quota";q=10000'


def test_account(person, of_globex, globex):
    """GET usage/: used, total, remaining, resets_at, plan, rate_limit."""
    of_globex().get(JOBS)

    body = person("member", globex).get(ACCOUNT).json()["data"]

    assert body.pop("resets_at")[7:] == "-01T00:00:00Z"
    assert body == {
        "used": 1,
        "total": 10000,
        "remaining": 9999,
        "plan": "free",
        "rate_limit": "60/m",
    }


@pytest.mark.parametrize(
    ("fields", "code"),
    [({"rate": "3/m"}, "rate_limited"), ({"quota": 3}, "quota_exceeded")],
    ids=["rate", "quota"],
)
def test_plan_counts_over_all_keys(fields, code, free, of_globex, clock):
    """The plan's rate and quota count over all the owner's keys."""
    free(**fields)
    first, second = of_globex(), of_globex()

    assert statuses(first, 2) == [200, 200]
    assert statuses(second, 1) == [200]
    assert reason(second.get(JOBS)) == reason(first.get(JOBS)) == (429, code)


def test_own_rate_applies_to_that_key(free, of_globex, clock):
    """A key's own rate_limit applies to that key beside them."""
    free(rate="3/m")
    limited, other = of_globex(rate_limit="1/m"), of_globex()

    assert statuses(limited, 2) == [200, 429]
    assert statuses(other, 3) == [200, 200, 429]


@pytest.mark.parametrize(
    ("rate", "policy"),
    [
        ("9/s", '"key";q=9;w=1'),
        ("9/m", '"key";q=9;w=60'),
        ("9/h", '"key";q=9;w=3600'),
        ("9/d", '"key";q=9;w=86400'),
    ],
)
def test_units_of_a_rate(rate, policy, program):
    """A key's own rate_limit (N/s|m|h|d)."""
    assert program("jobs:read", rate_limit=rate).get(JOBS).headers["RateLimit-Policy"] == policy


def test_quota_is_a_calendar_month(free, of_globex, clock):
    """The quota is a calendar month."""
    free(quota=1)
    client = of_globex()
    clock.now = utc(2026, 11, 1).timestamp()
    first = statuses(client, 2)
    clock.now = utc(2026, 11, 30, 23, 59, 59).timestamp()
    last = statuses(client, 1)
    clock.now = utc(2026, 12, 1).timestamp()

    assert [*first, *last, *statuses(client, 2)] == [200, 429, 429, 200, 429]


@pytest.mark.parametrize(
    ("zone", "seconds"), [("UTC", 8 * 3600 + 1800), ("Asia/Tokyo", 31 * 86400 - 1800)]
)
def test_month_is_that_of_a_time_zone(zone, seconds, of_globex, clock, settings):
    """The quota is a calendar month (APIKEYS_QUOTA_TIME_ZONE)."""
    settings.APIKEYS_QUOTA_TIME_ZONE = zone
    settings.APIKEYS_PLANS = {"free": {"quota": 9}}
    clock.now = utc(2026, 11, 30, 15, 30).timestamp()

    assert of_globex().get(JOBS).headers["RateLimit"] == f'"quota";r=8;t={seconds}'


# --- 8. Where it is counted ---------------------------------------------------------------


def test_rates_and_quotas_have_their_caches(free, of_globex, clock, settings):
    """Rates … over the cache that RATELIMIT_USE_CACHE names; APIKEYS_CACHE holds the quotas."""
    settings.RATELIMIT_USE_CACHE, settings.APIKEYS_CACHE = "rates", "quotas"
    free(rate="1/m", quota=2)
    client = of_globex()

    first = [client.get(JOBS).status_code, reason(client.get(JOBS))]
    forget("default", "rates")
    without_rates = client.get(JOBS).headers["RateLimit"]
    forget("rates")
    without_quota = reason(client.get(JOBS))
    forget("rates", "quotas")

    assert first == [200, (429, "rate_limited")]
    assert without_rates.endswith('"quota";r=0;t=864040')
    assert without_quota == (429, "quota_exceeded")
    assert client.get(JOBS).status_code == 200


def test_quotas_are_in_the_same_cache_by_default(free, of_globex, clock, settings):
    """APIKEYS_CACHE (default: the same)."""
    settings.RATELIMIT_USE_CACHE = "rates"
    free(quota=1)
    client = of_globex()

    before = statuses(client, 2)
    forget("default", "quotas")
    without_others = statuses(client, 1)
    forget("rates")

    assert [*before, *without_others, *statuses(client, 1)] == [200, 429, 429, 200]


def test_rates_are_those_of_django_ratelimit(program, clock, settings):
    """By default rates are counted by django-ratelimit; it need not stand in INSTALLED_APPS."""
    client = program("jobs:read", rate_limit="1/m")

    counted = statuses(client, 2)
    settings.RATELIMIT_ENABLE = False
    switched_off = statuses(client, 2)

    assert not apps.is_installed("django_ratelimit")
    assert [*counted, *switched_off] == [200, 429, 200, 200]


@pytest.mark.parametrize(
    ("name", "value", "finding"),
    [
        pytest.param("APIKEYS_CACHE", "quotas", "django_apikeys.W011", id="caches differ"),
        pytest.param("RATELIMIT_ENABLE", False, "django_apikeys.W012", id="switched off"),
    ],
)
def test_check_of_the_caches(name, value, finding, settings):
    """A check says where they differ or RATELIMIT_ENABLE is off."""
    before = findings()
    setattr(settings, name, value)

    assert findings() - before == {finding}


def test_check_of_a_cache_that_is_not_shared():
    """``check --deploy`` says so where the cache is not shared or may drop counters."""
    deployed = findings(include_deployment_checks=True)

    assert "django_apikeys.W009" in deployed
    assert "django_apikeys.W009" not in findings()


# --- 8. Windows ---------------------------------------------------------------------------


def test_windows_are_fixed(program, clock):
    """Windows are fixed: exactly N pass in a window; up to 2 N around its edge."""
    client = program("jobs:read", rate_limit="3/m")
    reset = client.get(JOBS).headers["RateLimit"].partition(";t=")[2]
    clock.now += int(reset) + 59  # the last second of the next window

    before = statuses(client, 5)
    clock.now += 1
    after = statuses(client, 5)

    assert before == after == [200, 200, 200, 429, 429]


@pytest.mark.parametrize(
    ("rate", "passed"),
    [("5/m", [200, 200, 200, 429]), ("2/m", [429, 429, 429, 429])],
    ids=["more", "less"],
)
def test_changed_number_begins_no_new_count(rate, passed, owner, issue, clock):
    """Changing a rate's number does not begin a new count."""
    issued = issue("jobs:read", rate_limit="3/m")
    client = client_of(issued)
    statuses(client, 2)

    owner.patch(f"/api/v1/keys/{issued.key.pk}/", {"rate_limit": rate})

    assert statuses(client, 4) == passed


@pytest.mark.parametrize("fraction", [0.0, 0.5, 0.999])
@pytest.mark.parametrize("rate", ["1/s", "1/m", "1/h", "1/d"])
def test_who_waits_out_retry_after_is_in_the_next_window(rate, fraction, program, clock):
    """Retry-After is in whole seconds, ≥ 1, and … a client that waits it out is let in."""
    client = program("jobs:read", rate_limit=rate)
    clock.now += fraction
    client.get(JOBS)

    refused = client.get(JOBS)

    assert reason(refused) == (429, "rate_limited")
    assert re.fullmatch("[1-9][0-9]*", refused.headers["Retry-After"])
    clock.now += int(refused.headers["Retry-After"])
    assert client.get(JOBS).status_code == 200


@pytest.mark.parametrize(
    ("fraction", "seconds"), [(0.0, "864040"), (0.5, "864040"), (864039.5, "1")]
)
def test_who_waits_out_retry_after_has_a_new_quota(fraction, seconds, free, of_globex, clock):
    """Retry-After … of a quota: a client that waits it out is in the next month."""
    free(quota=1)
    client = of_globex()
    clock.now += fraction
    client.get(JOBS)

    refused = client.get(JOBS)

    assert reason(refused) == (429, "quota_exceeded")
    assert refused.headers["Retry-After"] == seconds
    clock.now += int(seconds)
    assert client.get(JOBS).status_code == 200


# --- 8. A cache that is lost, or down -----------------------------------------------------


def test_lost_quota_is_seeded_from_the_database(free, of_globex, clock):
    """After a cache loss … it may admit again what was not flushed."""
    free(quota=3)
    client = of_globex()
    statuses(client, 1)
    flush_usage()
    statuses(client, 1)  # not flushed

    forget("default")

    assert statuses(client, 3) == [200, 200, 429]


def test_lost_quota_counts_no_request_twice(free, of_globex, clock):
    """After a cache loss … it never counts a request twice."""
    free(quota=5)
    client = of_globex()
    statuses(client, 1)
    flush_usage()
    statuses(client, 1)
    forget("default")
    statuses(client, 1)

    flush_usage()

    assert OwnerQuota.objects.get().units == 3
    assert client.get(JOBS).headers["RateLimit"] == '"quota";r=1;t=864040'


def test_cache_down_is_open_by_default(of_globex, dead_cache):
    """Cache down: APIKEYS_LIMITS_FAIL = open (default)."""
    answer = of_globex().get(JOBS)

    assert answer.status_code == 200
    assert not answer.has_header("RateLimit")


def test_cache_down_and_closed(of_globex, dead_cache, settings):
    """Cache down: APIKEYS_LIMITS_FAIL = closed (503)."""
    settings.APIKEYS_LIMITS_FAIL = "closed"

    answer = of_globex().get(JOBS)

    assert reason(answer) == (503, "unavailable")
    assert answer.headers["Retry-After"] == "2"


def test_cache_down_is_left_alone_for_two_seconds(of_globex, dead_cache):
    """Cache down …: then left alone for 2 s."""
    client = of_globex()

    tried = []
    for seconds in (0, 1.9, 0.1):
        dead_cache.now += seconds
        client.get(JOBS)
        tried.append(DeadCache.tried)

    assert tried == [1, 1, 2]


# --- 3. Rate headers ----------------------------------------------------------------------


def test_headers_are_in_their_order(free, of_globex, clock):
    """The key's own limit first, then the plan's, then the quota (a month has no ``w``)."""
    free(rate="9/s", quota=100)

    answer = of_globex(rate_limit="5/s").get(JOBS)

    assert answer.status_code == 200
    assert answer.headers["RateLimit-Policy"] == '"key";q=5;w=1, "plan";q=9;w=1, "quota";q=100'
    assert answer.headers["RateLimit"] == '"key";r=4;t=1, "plan";r=8;t=1, "quota";r=99;t=864040'


SPENT = {
    "key": ("1/s", {"rate": "9/s", "quota": 9}, '"key";q=1;w=1', '"key";r=0;t=1'),
    "plan": ("", {"rate": "1/s", "quota": 9}, '"plan";q=1;w=1', '"plan";r=0;t=1'),
    "quota": ("", {"quota": 1}, '"quota";q=1', '"quota";r=0;t=864040'),
}


@pytest.mark.parametrize("spent", SPENT)
def test_headers_of_429(spent, free, of_globex, clock):
    """Rate headers, on each answer for which limits were asked: 429 too, with Retry-After."""
    rate_limit, plan, policy, left = SPENT[spent]
    free(**plan)
    client = of_globex(rate_limit=rate_limit)
    client.get(JOBS)

    answer = client.get(JOBS)

    assert answer.status_code == 429
    assert answer.headers["RateLimit-Policy"] == policy
    assert answer.headers["RateLimit"] == left
    assert answer.headers["Retry-After"] == left.rpartition("=")[2]


@pytest.mark.parametrize("status", [200, 302, 404, 500])
def test_headers_on_each_answer(status, program, clock):
    """Rate headers, on each answer for which limits were asked."""
    client = program("jobs:read", rate_limit="5/s")

    answer = client.get(answers(status))

    assert answer.status_code == status
    assert answer.headers["RateLimit"] == '"key";r=4;t=1'


@pytest.mark.parametrize(
    ("scopes", "fields"),
    [
        pytest.param([], {}, id="scope"),
        pytest.param(["jobs:read"], {"allowed_ips": ["192.0.2.0/24"]}, id="address"),
        pytest.param(["jobs:read"], {"enabled": False}, id="state"),
    ],
)
def test_headers_only_where_limits_were_asked(scopes, fields, program):
    """What is refused before 11 asks no limits, and has no rate headers."""
    answer = program(*scopes, rate_limit="5/s", **fields).get(JOBS)

    assert answer.status_code in (401, 403)
    assert not answer.has_header("RateLimit")
    assert not answer.has_header("RateLimit-Policy")
