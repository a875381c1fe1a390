"""The throttle, through the client. This module is its own URLconf."""

import pytest
from django.core.cache import caches
from django.http import Http404
from django.urls import include, path
from rest_framework.decorators import api_view, permission_classes, throttle_classes
from rest_framework.exceptions import PermissionDenied
from rest_framework.permissions import AllowAny
from rest_framework.response import Response
from rest_framework.throttling import BaseThrottle
from rest_framework.views import APIView

from django_apikeys.drf.permissions import HasScope
from django_apikeys.drf.throttling import APIKeyThrottle
from django_apikeys.drf.views import SelfRevokeView
from django_apikeys.models import APIKeySecret, OwnerQuota
from django_apikeys.outage import breaker
from django_apikeys.policy import UserPolicy
from tests.conftest import bearer
from tests.factories import UserFactory
from tests.limiting import stopped, utc

# 40 seconds before midnight.
NOW = utc(2026, 11, 20, 23, 59, 20)


class StoppedThrottle(APIKeyThrottle):
    """Takes the time from here; ``stopped`` does the same for django-ratelimit."""

    @staticmethod
    def timer():
        return NOW


class ClosedThrottle(BaseThrottle):
    """Lets nobody through; stands for a throttle of the host's own."""

    def allow_request(self, request, view):
        return False


class FreePolicy(UserPolicy):
    """Everybody is on the plan ``free``; whoever is called vip has a quota of their own."""

    def plan(self, owner):
        return "free"

    def plan_limits(self, owner):
        return {"quota": 9} if owner["username"] == "vip" else {}


class Limited(APIView):
    throttle_classes = [StoppedThrottle]
    permission_classes = [AllowAny]
    required_scopes = []

    def get(self, request):
        return Response({})

    post = get


class Denied(Limited):
    def get(self, request):
        raise PermissionDenied


class Missing(Limited):
    def get(self, request):
        raise Http404


class Twice(Limited):
    throttle_classes = [StoppedThrottle, StoppedThrottle, APIKeyThrottle]


class Scoped(Limited):
    required_scopes = ["jobs:read"]


class Costly(Limited):
    api_cost = 5


class Free(Limited):
    api_cost = 0


class CostsByMethod(Limited):
    @property
    def api_cost(self):
        return 3 if self.request.method == "POST" else 1


class CostFails(Limited):
    @property
    def api_cost(self):
        return self.request.no_such_attribute


class CostOfItsOwn(Limited):
    def initial(self, request):
        self.api_cost = 3
        super().initial(request)


class Unlimited(Limited):
    throttle_classes = []


@api_view(["GET"])
@throttle_classes([StoppedThrottle])
@permission_classes([HasScope("jobs:read")])
def function_view(request):
    return Response({})


function_view.cls.api_cost = 5

urlpatterns = [
    path("limited/", Limited.as_view()),
    path("denied/", Denied.as_view()),
    path("missing/", Missing.as_view()),
    path("twice/", Twice.as_view()),
    path("scoped/", Scoped.as_view()),
    path("costly/", Costly.as_view()),
    path("free/", Free.as_view()),
    path("by-method/", CostsByMethod.as_view()),
    path("cost-fails/", CostFails.as_view()),
    path("cost-of-its-own/", CostOfItsOwn.as_view()),
    path("unlimited/", Unlimited.as_view()),
    path("function/", function_view),
    path("", include("django_apikeys.drf.urls")),
]


@pytest.fixture
def plan(settings, monkeypatch):
    """Give the plan ``free`` these limits; the time stands still."""
    settings.ROOT_URLCONF = __name__
    settings.APIKEYS_POLICY = f"{__name__}.FreePolicy"
    settings.CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
            "LOCATION": "throttling",
        }
    }
    stopped(monkeypatch, NOW.timestamp())
    breaker.reset()

    def plan(**fields):
        settings.APIKEYS_PLANS = {"free": fields}

    plan()
    yield plan
    caches["default"].clear()


@pytest.fixture
def limit_of(issue, plan, client):
    """A function that calls a path with a key that has this rate."""

    def limit_of(rate="", **fields):
        secret = issue(rate_limit=rate, **fields).secret

        def call(url="/limited/", method="get", **headers):
            return getattr(client, method)(url, headers={**bearer(secret), **headers})

        return call

    return limit_of


def statuses(call, times, *args):
    return [call(*args).status_code for _ in range(times)]


# --- What counts ------------------------------------------------------------------------------


class TestOwnRate:
    def test_lets_its_number_through(self, limit_of):
        assert statuses(limit_of("2/m"), 4) == [200, 200, 429, 429]

    def test_is_of_each_key(self, limit_of):
        first, second = limit_of("1/m"), limit_of("1/m")

        assert statuses(first, 2) == [200, 429]
        assert statuses(second, 2) == [200, 429]

    def test_is_of_both_secrets_of_a_key(self, issue, plan, client):
        current, other = issue(rate_limit="1/m"), issue()
        APIKeySecret.objects.filter(key=other.key).update(key=current.key, slot=1)

        found = [
            client.get("/limited/", headers=bearer(secret)).status_code
            for secret in (other.secret, current.secret)
        ]

        assert found == [200, 429]

    @pytest.mark.parametrize("method", ["head", "options"])
    def test_counts_each_method(self, limit_of, method):
        call = limit_of("1/m")

        assert [call(method=method).status_code, call().status_code] == [200, 429]

    def test_counts_a_request_once_however_often_a_view_asks(self, limit_of):
        assert statuses(limit_of("2/m"), 3, "/twice/") == [200, 200, 429]

    def test_counts_what_the_view_refuses(self, limit_of):
        assert statuses(limit_of("1/m"), 2, "/denied/") == [403, 429]

    def test_is_not_counted_where_the_view_has_no_throttle(self, limit_of):
        assert statuses(limit_of("1/m"), 3, "/unlimited/") == [200, 200, 200]

    def test_counts_nothing_that_lacks_a_scope(self, limit_of):
        call = limit_of("1/m")

        assert statuses(call, 3, "/scoped/") == [403, 403, 403]
        assert call().status_code == 200

    def test_counts_nothing_from_an_address_that_is_not_allowed(self, issue, plan, client):
        headers = bearer(issue(rate_limit="1/m", allowed_ips=["192.0.2.0/24"]).secret)

        from_outside = client.get("/limited/", headers=headers)
        from_inside = client.get("/limited/", headers=headers, REMOTE_ADDR="192.0.2.1")

        assert (from_outside.status_code, from_inside.status_code) == (403, 200)

    def test_counts_nothing_of_who_knows_the_public_id_alone(self, issue, plan, client):
        issued, other = issue(rate_limit="1/m"), issue()
        # The secret of the other key under this public id, and no digest that fits.
        APIKeySecret.objects.filter(key=other.key).delete()
        forged = other.secret
        APIKeySecret.objects.create(
            key=issued.key,
            slot=1,
            prefix="rak",
            public_id=forged.split("_")[2],
            last_four="xxxx",
            digest="hmac-sha256$none$" + "0" * 64,
        )

        assert client.get("/limited/", headers=bearer(forged)).status_code == 401
        assert client.get("/limited/", headers=bearer(issued.secret)).status_code == 200

    def test_that_is_changed_goes_on_with_the_count(self, issue, plan, client):
        issued = issue(rate_limit="1/m")
        headers = bearer(issued.secret)
        client.get("/limited/", headers=headers)
        type(issued.key).objects.filter(pk=issued.key.pk).update(rate_limit="3/m")

        found = [client.get("/limited/", headers=headers).status_code for _ in range(3)]

        assert found == [200, 200, 429]


class TestPlan:
    def test_counts_over_all_keys_of_the_owner(self, limit_of, plan):
        plan(rate="3/m")
        first, second = limit_of(), limit_of()

        assert [*statuses(first, 2), *statuses(second, 2)] == [200, 200, 200, 429]

    def test_of_another_owner_is_another(self, limit_of, plan):
        plan(rate="1/m")

        assert statuses(limit_of(), 2) == [200, 429]
        assert statuses(limit_of(owner=UserFactory()), 2) == [200, 429]

    def test_is_not_eaten_by_a_key_over_its_own_rate(self, limit_of, plan):
        plan(rate="3/m", quota=3)
        limited, other = limit_of("1/m"), limit_of()

        assert statuses(limited, 5) == [200, 429, 429, 429, 429]
        assert statuses(other, 3) == [200, 200, 429]

    def test_is_none_for_a_key_of_the_project(self, limit_of, plan):
        plan(rate="1/m", quota=1)

        assert statuses(limit_of(owner=None), 3) == [200, 200, 200]

    def test_of_one_owner_may_be_another_by_the_policy(self, limit_of, plan):
        plan(quota=1)
        call = limit_of(owner=UserFactory(username="vip"))

        assert call()["RateLimit"] == '"quota";r=8;t=864040'

    @pytest.mark.parametrize("rate", ["", "9/m"], ids=["no rate", "own rate"])
    def test_that_is_unknown_limits_nothing(self, limit_of, plan, settings, rate):
        settings.APIKEYS_PLANS = {"pro": {"rate": "1/m", "quota": 1}}

        assert statuses(limit_of(rate), 3) == [200, 200, 200]


class TestQuota:
    def test_counts_over_all_keys_of_the_owner(self, limit_of, plan):
        plan(quota=3)
        first, second = limit_of(), limit_of()

        assert [*statuses(first, 2), *statuses(second, 2)] == [200, 200, 200, 429]

    def test_is_not_used_by_what_is_refused(self, limit_of, plan):
        plan(quota=10)
        call = limit_of()

        assert statuses(call, 3, "/costly/") == [200, 200, 429]
        assert call("/costly/")["RateLimit"] == '"quota";r=0;t=864040'

    def test_takes_back_what_was_too_much(self, limit_of, plan):
        plan(quota=7)
        call = limit_of()

        assert statuses(call, 2, "/costly/") == [200, 429]
        assert statuses(call, 3) == [200, 200, 429]

    def test_of_a_call_that_costs_nothing_is_not_used(self, limit_of, plan):
        plan(quota=1)
        call = limit_of()

        assert statuses(call, 3, "/free/") == [200, 200, 200]
        assert statuses(call, 2) == [200, 429]
        assert call("/free/").status_code == 200

    def test_of_a_cost_by_request(self, limit_of, plan):
        plan(quota=10)
        call = limit_of()

        assert call("/by-method/", "post")["RateLimit"] == '"quota";r=7;t=864040'
        assert call("/by-method/")["RateLimit"] == '"quota";r=6;t=864040'

    def test_of_a_function(self, limit_of, plan):
        plan(quota=10)

        response = limit_of(scopes=["jobs:read"])("/function/")

        assert response["RateLimit"] == '"quota";r=5;t=864040'

    def test_of_a_cost_that_the_view_sets_on_itself(self, limit_of, plan):
        plan(quota=10)

        assert limit_of()("/cost-of-its-own/")["RateLimit"] == '"quota";r=7;t=864040'

    def test_of_a_property_that_fails_is_not_taken_for_one_unit(self, limit_of, plan):
        with pytest.raises(AttributeError, match="no_such_attribute"):
            limit_of()("/cost-fails/")

    def test_goes_on_after_the_cache_is_lost(self, limit_of, plan, user):
        plan(quota=5)
        call = limit_of()
        statuses(call, 4)
        OwnerQuota.objects.update_or_create(
            owner_id=str(user.pk), month=NOW.date().replace(day=1), defaults={"units": 4}
        )
        caches["default"].clear()

        assert statuses(call, 2) == [200, 429]

    def test_is_counted_where_rates_are_switched_off(self, limit_of, plan, settings):
        settings.RATELIMIT_ENABLE = False
        plan(rate="1/m", quota=2)

        assert statuses(limit_of("1/m"), 3) == [200, 200, 429]

    @pytest.mark.parametrize("cost", [-1, 1.5, "5", None, True, 10**9 + 1, 10**20])
    def test_of_a_bad_cost_is_an_error_of_the_developer(self, limit_of, plan, monkeypatch, cost):
        monkeypatch.setattr(Costly, "api_cost", cost)

        with pytest.raises(
            ValueError, match=r"^api_cost of Costly is a number of units, from 0 to 1000000000\.$"
        ):
            limit_of()("/costly/")


class TestSpentKey:
    """What a key may do to itself and read of itself when its limits are used up."""

    @pytest.mark.parametrize("fields", [{"rate": "1/d"}, {"quota": 1}], ids=["rate", "quota"])
    def test_revokes_itself(self, limit_of, plan, fields):
        plan(**fields)
        call = limit_of("1/d", scopes=["self:revoke"])
        call()

        response = call("/keys/self/revoke/", "post")

        assert (call().status_code, response.status_code) == (401, 200)
        assert response.json()["status"] == "revoked"
        assert not response.has_header("RateLimit")

    def test_revokes_itself_while_the_cache_is_down(self, limit_of, settings):
        settings.APIKEYS_LIMITS_FAIL = "closed"
        settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}
        call = limit_of("1/d", scopes=["self:revoke"])

        found = [call().status_code, call("/keys/self/revoke/", "post").status_code]
        breaker.reset()

        assert found == [503, 200]

    def test_is_held_by_the_throttles_of_the_host(self, limit_of, monkeypatch):
        monkeypatch.setattr(SelfRevokeView, "throttle_classes", [StoppedThrottle, ClosedThrottle])
        call = limit_of("1/d", scopes=["self:revoke"])

        response = call("/keys/self/revoke/", "post")

        assert response.status_code == 429
        assert not response.has_header("RateLimit")

    @pytest.mark.parametrize("url", ["/usage/", "/keys/self/"])
    def test_reads_what_it_has_left(self, limit_of, plan, url):
        plan(quota=1)
        call = limit_of(scopes=["apikeys:read"])

        found = [*statuses(call, 2, url), *statuses(call, 2), *statuses(call, 2, url)]

        assert found == [200, 200, 200, 429, 200, 200]

    @pytest.mark.parametrize("url", ["/usage/", "/keys/self/"])
    def test_reads_within_its_rate(self, limit_of, url):
        assert statuses(limit_of("1/d", scopes=["apikeys:read"]), 2, url) == [200, 429]


@pytest.fixture
def _tight(plan):
    plan(rate="1/m", quota=1)


@pytest.mark.usefixtures("_tight")
class TestOtherCallers:
    def test_persons_are_not_throttled(self, as_user):
        responses = [as_user.get("/limited/") for _ in range(3)]

        assert [response.status_code for response in responses] == [200, 200, 200]
        assert not responses[0].has_header("RateLimit")

    @pytest.mark.django_db
    def test_nobody_is_not_throttled(self, client):
        assert [client.get("/limited/").status_code for _ in range(3)] == [200, 200, 200]


# --- What the answers say ---------------------------------------------------------------------


class TestHeaders:
    @pytest.mark.parametrize(
        ("url", "status"), [("/limited/", 200), ("/denied/", 403), ("/missing/", 404)]
    )
    def test_name_all_limits_in_their_order(self, limit_of, plan, url, status):
        plan(rate="300/h", quota=10_000)

        response = limit_of("60/d")(url)

        assert response.status_code == status
        policy, left = response["RateLimit-Policy"], response["RateLimit"]
        assert policy == '"key";q=60;w=86400, "plan";q=300;w=3600, "quota";q=10000'
        assert [item.split(";t=")[0] for item in left.split(", ")] == [
            '"key";r=59',
            '"plan";r=299',
            '"quota";r=9999',
        ]
        assert left.endswith(";t=864040")
        assert not response.has_header("Retry-After")

    def test_of_a_rate_by_the_second(self, limit_of):
        response = limit_of("5/s")()

        assert response["RateLimit-Policy"] == '"key";q=5;w=1'
        assert response["RateLimit"] == '"key";r=4;t=1'

    def test_of_a_refusal_by_rate(self, limit_of, plan):
        plan(rate="9/s")
        call = limit_of("1/s")
        call()

        response = call()

        assert response.status_code == 429
        assert response["RateLimit-Policy"] == '"key";q=1;w=1'
        assert response["RateLimit"] == '"key";r=0;t=1'
        assert response["Retry-After"] == "1"
        assert response["Cache-Control"] == "no-store"
        assert not response.has_header("WWW-Authenticate")

    def test_of_a_refusal_by_the_quota(self, limit_of, plan):
        plan(quota=0)

        response = limit_of("9/s")()

        assert response.status_code == 429
        assert response["RateLimit-Policy"] == '"key";q=9;w=1, "quota";q=0'
        assert response["RateLimit"] == '"key";r=8;t=1, "quota";r=0;t=864040'
        assert response["Retry-After"] == "864040"

    def test_are_left_out_without_limits(self, limit_of):
        response = limit_of()()

        assert not response.has_header("RateLimit")
        assert not response.has_header("RateLimit-Policy")

    def test_are_left_out_where_the_key_was_refused_before(self, limit_of):
        assert not limit_of("1/m")("/scoped/").has_header("RateLimit")


MESSAGES = {
    "rate_limited": "Too many requests with this API key. Try again later.",
    "quota_exceeded": "The quota of this month is used up.",
}


class TestBodies:
    @pytest.fixture(
        params=[
            ("1/m", {}, "rate_limited"),
            ("", {"rate": "1/m"}, "rate_limited"),
            ("", {"quota": 1}, "quota_exceeded"),
        ],
        ids=["key", "plan", "quota"],
    )
    def refused(self, request, limit_of, plan):
        """The second answer where there is one to be had, and the code that it should have."""
        rate, fields, code = request.param
        plan(**fields)
        call = limit_of(rate)

        def refused():
            call()
            return call().json()

        return refused, code

    def test_have_a_code(self, refused):
        answer, code = refused

        assert answer() == {"detail": MESSAGES[code], "code": code}

    def test_have_it_in_the_envelope(self, refused, settings):
        settings.REST_FRAMEWORK = {
            **settings.REST_FRAMEWORK,
            "EXCEPTION_HANDLER": "django_apikeys.drf.exceptions.exception_handler",
        }
        answer, code = refused

        assert answer() == {
            "error": {"code": "TOO_MANY_REQUESTS", "reason": code, "message": MESSAGES[code]}
        }

    def test_say_that_a_call_needs_more_units_than_are_left(self, limit_of, plan):
        plan(quota=4)

        response = limit_of()("/costly/")

        assert response["RateLimit"] == '"quota";r=4;t=864040'
        assert response.json() == {
            "detail": "This call needs more units than are left of the quota of this month.",
            "code": "quota_exceeded",
        }

    def test_have_one_for_limits_that_nobody_knows(self, limit_of, plan, settings):
        settings.APIKEYS_LIMITS_FAIL = "closed"
        settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}

        response = limit_of("1/m")()
        breaker.reset()

        assert response.status_code == 503
        assert response["Retry-After"] == "2"
        assert response["Cache-Control"] == "no-store"
        assert response.json() == {
            "detail": "The limits of API keys cannot be counted at the moment. Try again later.",
            "code": "unavailable",
        }


@pytest.mark.parametrize("status", ["200", "429"])
def test_writes_nothing_to_the_database(limit_of, plan, django_assert_num_queries, status):
    plan(rate="9/m", quota=9)
    call = limit_of("1/m" if status == "429" else "9/m")
    call()

    with django_assert_num_queries(1):
        assert call().status_code == int(status)
