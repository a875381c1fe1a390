"""What the middleware counts, by the real client: each request of a verified key, once."""

import asyncio
import re
from contextlib import suppress
from types import SimpleNamespace

import pytest
from asgiref.sync import async_to_sync
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.test import AsyncClient, Client
from django.urls import path
from django.utils.http import http_date

from django_apikeys import services, verification
from django_apikeys.drf.throttling import APIKeyThrottle
from django_apikeys.exceptions import Refused
from django_apikeys.middleware import APIKeyMiddleware
from django_apikeys.models import APIKeyAddress, APIKeyTotals, APIKeyUsage, OwnerQuota
from django_apikeys.testing import flush_usage
from tests import views
from tests.conftest import bearer

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("counting")]
WRITES = re.compile(r"(INSERT|UPDATE|DELETE|REPLACE)\b")


def counted():
    """Flush, and return what is stored."""
    flush_usage()
    columns = ("route", "method", "outcome", "requests")
    return list(APIKeyUsage.objects.order_by(*columns).values_list(*columns))


class Refusing:
    """A middleware of the host's that answers instead of the view."""

    def __init__(self, get_response):
        """It asks nobody."""

    def __call__(self, request):
        return HttpResponse(status=403)


class Changing:
    """A middleware of the host's that answers otherwise than the view."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        self.get_response(request)
        return HttpResponse(status=503)


def plain(request):
    """Answer without DRF, as a decorator's view."""
    with suppress(Refused):
        verification.verify(request, required_scopes=["customers:write"])
    return HttpResponse(status=403)


def twice(request):
    verification.verify(request)
    verification.verify(request)
    return HttpResponse()


def streaming(request):
    verification.verify(request)
    return StreamingHttpResponse(iter([b"a", b"b"]))


def raising(request, number):
    verification.verify(request)
    raise RuntimeError


async def asynchronous(request):
    await verification.averify(request)
    return JsonResponse({})


async def async_raising(request):
    await verification.averify(request)
    raise RuntimeError


urlpatterns = [
    path("plain/", plain),
    path("twice/", twice),
    path("streaming/", streaming),
    path("raising/<int:number>/", raising),
    path("async/", asynchronous),
    path("async-raising/", async_raising),
    path("customers/", views.Customers.as_view()),
]
PATHS = ("/plain/", "/streaming/", "/raising/1/", "/async/", "/async-raising/", "/customers/")


@pytest.fixture
def own_urls(settings):
    settings.ROOT_URLCONF = __name__


@pytest.fixture
def headers(issued):
    return bearer(issued.secret)


@pytest.fixture
def client(client):
    client.raise_request_exception = False
    return client


@pytest.mark.parametrize(
    ("method", "url", "row"),
    [
        pytest.param("get", "/customers/", ("customers/", "GET", "2xx", 1), id="answered"),
        pytest.param("options", "/customers/", ("customers/", "OPTIONS", "2xx", 1), id="options"),
        pytest.param("post", "/customers/", ("customers/", "POST", "refused", 1), id="no-scope"),
        pytest.param("get", "/undeclared/", ("undeclared/", "GET", "refused", 1), id="undeclared"),
        pytest.param(
            "get", "/failing/http404/", ("failing/<str:name>/", "GET", "4xx", 1), id="404"
        ),
        pytest.param(
            "get", "/failing/runtime-error/", ("failing/<str:name>/", "GET", "5xx", 1), id="raises"
        ),
        pytest.param(
            "get", "/failing/denied/", ("failing/<str:name>/", "GET", "4xx", 1), id="403"
        ),
    ],
)
def test_request_is_counted_by_route_method_and_outcome(client, headers, method, url, row):
    """The route is the pattern, so that ids do not multiply rows."""
    getattr(client, method)(url, headers=headers)

    assert counted() == [row]


def test_method_that_is_odd_is_other(client, headers):
    client.generic("PROPFIND", "/customers/", headers=headers)

    assert [row[1] for row in counted()] == ["other"]


def test_totals_and_the_address_follow(client, headers, issued):
    client.get("/customers/", headers=headers, REMOTE_ADDR="192.0.2.7")
    client.post("/customers/", headers=headers, REMOTE_ADDR="192.0.2.8")

    assert counted()
    columns = ("key_id", "requests", "errors", "last_used_ip")
    assert APIKeyTotals.objects.values_list(*columns).get() == (
        issued.key.pk,
        2,
        1,
        "192.0.2.8",
    )
    assert set(APIKeyAddress.objects.values_list("address", "requests")) == {
        ("192.0.2.7", 1),
        ("192.0.2.8", 1),
    }


def test_address_that_is_not_allowed_is_refused(client, issue):
    issued = issue(scopes=["customers:read"], allowed_ips=["192.0.2.0/24"])

    response = client.get("/customers/", headers=bearer(issued.secret))

    assert (response.status_code, counted()) == (403, [("customers/", "GET", "refused", 1)])


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param({}, id="nothing"),
        pytest.param(bearer("rak_live_7Fq2Lm9XcT0a_typo"), id="malformed"),
        pytest.param({"Authorization": "Bearer of-somebody-else"}, id="not-ours"),
    ],
)
def test_request_without_a_verified_key_is_not_counted(client, issued, sent):
    client.get("/customers/", headers=sent)

    assert counted() == []


def test_401_of_a_dead_key_is_not_counted(client, issue):
    issued = issue(scopes=["customers:read"])
    issued.key.enabled = False
    issued.key.save()

    response = client.get("/customers/", headers=bearer(issued.secret))

    assert (response.status_code, counted()) == (401, [])


def test_request_of_a_person_is_not_counted(as_user):
    assert as_user.get("/customers/").status_code == 200
    assert counted() == []


def test_url_that_does_not_exist_verifies_no_key(client, headers):
    assert client.get("/nowhere/", headers=headers).status_code == 404
    assert counted() == []


def test_request_beyond_the_rate_is_limited(client, issue, monkeypatch, settings):
    monkeypatch.setattr(views.Customers, "throttle_classes", [APIKeyThrottle])
    settings.APIKEYS_PLANS = {"free": {"quota": 100}}
    issued = issue(scopes=["customers:read"], rate_limit="2/d")
    headers = bearer(issued.secret)

    statuses = [client.get("/customers/", headers=headers).status_code for _ in range(3)]

    assert statuses == [200, 200, 429]
    assert counted() == [("customers/", "GET", "2xx", 2), ("customers/", "GET", "limited", 1)]


def test_unit_of_a_request_is_stored_with_it(client, issued, monkeypatch, settings):
    monkeypatch.setattr(views.Customers, "throttle_classes", [APIKeyThrottle])
    settings.APIKEYS_POLICY = "tests.test_middleware.WithQuota"

    client.get("/customers/", headers=bearer(issued.secret))
    flush_usage()

    owner = str(issued.key.owner_id)
    assert list(OwnerQuota.objects.values_list("owner_id", "units")) == [(owner, 1)]


class WithQuota(verification.conf.policy.__class__):
    def plan_limits(self, owner):
        return {"quota": 10}


@pytest.mark.parametrize(
    ("middleware", "rows"),
    [
        pytest.param("Refusing", [], id="that-refuses-before-the-view"),
        pytest.param("Changing", [("customers/", "GET", "5xx", 1)], id="that-changes-the-answer"),
    ],
)
def test_answer_of_another_middleware_is_what_counts(client, headers, settings, middleware, rows):
    settings.MIDDLEWARE = [settings.MIDDLEWARE[0], f"{__name__}.{middleware}"]

    client.get("/customers/", headers=headers)

    assert counted() == rows


@pytest.mark.parametrize(
    ("middleware", "status"),
    [("django.middleware.security.SecurityMiddleware", 200), (f"{__name__}.Changing", 503)],
    ids=["that-leaves-the-answer-as-it-is", "that-changes-it"],
)
def test_answer_is_counted_as_it_was_below_another_middleware(
    client, headers, settings, middleware, status
):
    settings.MIDDLEWARE = [middleware, settings.MIDDLEWARE[0]]

    response = client.get("/customers/", headers=headers)

    assert response.status_code == status
    assert counted() == [("customers/", "GET", "2xx", 1)]


def test_csrf_is_refused_before_a_key_is_verified(issued, settings, own_urls):
    """Of a plain view; DRF's views ask for none where a key decides."""
    client = Client(enforce_csrf_checks=True)

    response = client.post("/plain/", headers=bearer(issued.secret))

    assert (response.status_code, counted()) == (403, [])


@pytest.mark.usefixtures("own_urls")
class TestPlainViews:
    @pytest.mark.parametrize(
        ("url", "status", "row"),
        [
            pytest.param("/plain/", 403, ("plain/", "GET", "refused", 1), id="refused"),
            pytest.param("/twice/", 200, ("twice/", "GET", "2xx", 1), id="verified-twice"),
            pytest.param("/streaming/", 200, ("streaming/", "GET", "2xx", 1), id="streaming"),
            pytest.param(
                "/raising/1/", 500, ("raising/<int:number>/", "GET", "5xx", 1), id="raises"
            ),
        ],
    )
    def test_are_counted_as_those_of_drf(self, client, headers, url, status, row):
        response = client.get(url, headers=headers)

        assert (response.status_code, counted()) == (status, [row])

    @pytest.mark.parametrize(
        ("url", "status", "row"),
        [
            pytest.param("/async/", 200, ("async/", "GET", "2xx", 1), id="async"),
            pytest.param("/async-raising/", 500, ("async-raising/", "GET", "5xx", 1), id="raises"),
            pytest.param("/plain/", 403, ("plain/", "GET", "refused", 1), id="sync"),
            pytest.param("/customers/", 200, ("customers/", "GET", "2xx", 1), id="drf"),
        ],
    )
    def test_are_counted_under_asgi(self, headers, url, status, row):
        client = AsyncClient(raise_request_exception=False)

        response = async_to_sync(client.get)(url, headers=headers)

        assert (response.status_code, counted()) == (status, [row])

    @pytest.mark.parametrize("client_class", [Client, AsyncClient], ids=["wsgi", "asgi"])
    @pytest.mark.parametrize("url", PATHS)
    def test_say_that_a_secret_was_rotated_and_when_it_ends(self, issued, url, client_class):
        services.rotate_key(key=issued.key)
        client = client_class(raise_request_exception=False)
        get = async_to_sync(client.get) if client_class is AsyncClient else client.get

        response = get(url, headers=bearer(issued.secret))

        end = issued.key.secrets.get(slot=1).retires_at
        assert response["X-API-Key-Rotated"] == "true"
        assert response["X-API-Key-Expires"] == http_date(end.timestamp())

    @pytest.mark.parametrize("sent", ["nothing", "the current secret", "of a dead key"])
    def test_say_nothing_of_the_end_of_what_does_not_end(self, client, issued, sent):
        if sent == "of a dead key":
            services.rotate_key(key=issued.key)
            services.revoke_key(key=issued.key)
        headers = {} if sent == "nothing" else bearer(issued.secret)

        response = client.get("/plain/", headers=headers)

        assert response.status_code == 403
        assert "X-API-Key-Rotated" not in response
        assert "X-API-Key-Expires" not in response


class TestWhatIsNoAnswer:
    """Django answers a view's errors; these pass it by."""

    @pytest.fixture
    def request_of_a_key(self, rf, headers):
        request = rf.get("/customers/", headers=headers)
        request.resolver_match = SimpleNamespace(route="customers/")
        verification.verify(request)
        return request

    def test_worker_that_is_told_to_end_counts_its_request(self, request_of_a_key):
        def ending(request):
            raise SystemExit

        with pytest.raises(SystemExit):
            APIKeyMiddleware(ending)(request_of_a_key)

        assert counted() == [("customers/", "GET", "5xx", 1)]

    @pytest.mark.parametrize(
        ("error", "outcome"),
        [(asyncio.CancelledError, "4xx"), (SystemExit, "5xx")],
        ids=["client-went-away", "worker-ends"],
    )
    def test_async_request_that_ends_early_is_counted(self, request_of_a_key, error, outcome):
        async def ending(request):
            raise error

        coroutine = APIKeyMiddleware(ending)(request_of_a_key)
        with pytest.raises(error):
            coroutine.send(None)

        assert counted() == [("customers/", "GET", outcome, 1)]


def test_request_writes_nothing_to_the_database(client, headers, django_assert_num_queries):
    """But for the first use of a secret, once. Its one statement is the look-up."""
    client.get("/open-to-all/", headers=headers)

    for _ in range(3):
        with django_assert_num_queries(1) as captured:
            client.get("/open-to-all/", headers=headers)
        assert not WRITES.match(captured.captured_queries[0]["sql"])
    assert counted() == [("open-to-all/", "GET", "2xx", 4)]
