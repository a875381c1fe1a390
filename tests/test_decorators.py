"""The decorator of plain Django views. This module is its own URLconf."""

import asyncio
import itertools
import subprocess
import sys
import threading

import pytest
from asgiref.sync import SyncToAsync, async_to_sync, sync_to_async
from django.contrib.auth import get_user, get_user_model
from django.core.cache import cache
from django.core.cache.backends.locmem import LocMemCache
from django.core.exceptions import PermissionDenied
from django.db import DEFAULT_DB_ALIAS, connection, connections
from django.http import Http404, HttpResponse, HttpResponseForbidden, JsonResponse
from django.template import engines
from django.template.response import TemplateResponse
from django.test import AsyncClient, AsyncRequestFactory, Client
from django.urls import path
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.cache import cache_control, cache_page

from django_apikeys import services
from django_apikeys.decorators import api_key_required
from django_apikeys.middleware import APIKeyMiddleware
from django_apikeys.models import APIKeyUsage
from django_apikeys.testing import flush_usage
from tests.conftest import bearer
from tests.factories import UserFactory

ANY_KEY = api_key_required(scopes=[])
_numbers = itertools.count()


def told(request):
    """Answer with a number of its own, so that an answer that was stored betrays itself."""
    return JsonResponse({"key": request.auth.public_id, "number": next(_numbers)})


@ANY_KEY
def caller(request):
    return JsonResponse({"user": request.user.get_username(), "session": str(get_user(request))})


@ANY_KEY
def touches_nobody(request):
    return JsonResponse({"pk": request.user.pk, "in": request.user.is_authenticated})


@ANY_KEY
def raising(request, error):
    raise {"http404": Http404, "denied": PermissionDenied, "bug": RuntimeError}[error]


@ANY_KEY
def forbidding(request):
    return HttpResponseForbidden()


@ANY_KEY
def templated(request):
    return TemplateResponse(request, engines["django"].from_string("{{ request.auth.name }}"))


@ANY_KEY
def nothing(request):
    """Answer nothing, by mistake."""


@ANY_KEY
def strictly(request):
    return HttpResponse(headers={"Cache-Control": "no-store, max-age=0"})


@api_key_required(scopes=[], cost=5)
def costly(request):
    return HttpResponse()


@api_key_required(scopes="customers:read")
def text(request):
    return HttpResponse()


@ANY_KEY
@api_key_required(scopes=["jobs:read"])
def twice(request):
    return HttpResponse()


@api_key_required(scopes=["jobs:read"])
def of_jobs(request):
    """Answer nobody of these tests."""


@api_key_required(scopes={"GET": ["customers:read"]})
def by_get(request):
    """Answer nobody that asks by OPTIONS."""


@api_key_required(scopes={"GET": [], "OPTIONS": ["customers:read"]})
def by_options(request):
    return HttpResponse()


@method_decorator([cache_page(60), ANY_KEY], name="dispatch")
class CachedDispatch(View):
    def get(self, request):
        return told(request)


@method_decorator([ANY_KEY, cache_page(60)], name="dispatch")
class DispatchCached(View):
    def get(self, request):
        return told(request)


def writes_first(request):
    UserFactory(username="written")
    return caller(request)


@ANY_KEY
async def ahello(request):
    return HttpResponse()


@ANY_KEY
async def acaller(request):
    user = await request.auser()
    return JsonResponse({"auser": user.get_username(), "user": request.user.get_username()})


urlpatterns = [
    path("ahello/", ahello),
    path("acaller/", acaller),
    path("of-jobs/", of_jobs),
    path("by-get/", by_get),
    path("by-options/", by_options),
    path("writes-first/", writes_first),
    path("caller/", caller),
    path("touches-nobody/", touches_nobody),
    path("raising/<str:error>/", raising),
    path("forbidding/", forbidding),
    path("templated/", templated),
    path("nothing/", nothing),
    path("strictly/", strictly),
    path("costly/", costly),
    path("text/", text),
    path("twice/", twice),
    path("told/", ANY_KEY(told)),
    path("cached/around/", cache_page(60)(ANY_KEY(told))),
    path("cached/within/", ANY_KEY(cache_page(60)(told))),
    path("cached/public/", cache_page(60)(cache_control(public=True, max_age=9)(ANY_KEY(told)))),
    path("cached/around-dispatch/", CachedDispatch.as_view()),
    path("cached/within-dispatch/", DispatchCached.as_view()),
]


@pytest.fixture(autouse=True)
def _urls(settings):
    settings.ROOT_URLCONF = __name__


@pytest.fixture
def call(issued):
    """A function that calls a path with a key, by a browser that asks for CSRF."""

    def call(path, method="get", client=None, secret=issued.secret):
        client = client or Client(enforce_csrf_checks=True)
        return getattr(client, method)(path, headers=bearer(secret))

    return call


@pytest.fixture
def as_bob(db):
    client = Client(enforce_csrf_checks=True)
    client.force_login(UserFactory(username="bob"))
    return client


def counted():
    flush_usage()
    columns = ("route", "method", "outcome", "requests")
    return list(APIKeyUsage.objects.order_by(*columns).values_list(*columns))


# --- No session -----------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["get", "post"])
def test_session_beside_a_key_is_ignored(method, call, as_bob):
    response = call("/caller/", method, as_bob)

    assert response.json()["user"] == "ann"


@pytest.mark.parametrize("headers", [{}, bearer("rak_nonsense")], ids=["alone", "refused-key"])
def test_session_lets_nobody_in(headers, as_bob):
    response = as_bob.get("/caller/", headers=headers)

    assert response.status_code == 401


@pytest.mark.parametrize("path", ["/caller/", "/cached/around/", "/cached/around-dispatch/"])
def test_login_required_middleware_sends_nobody_to_the_login(path, call, settings):
    settings.MIDDLEWARE = [
        *settings.MIDDLEWARE,
        "django.contrib.auth.middleware.LoginRequiredMiddleware",
    ]

    assert call(path).status_code == 200
    assert Client().get(path).status_code == 401


def test_user_is_loaded_when_touched(issued, call, django_assert_num_queries):
    call("/touches-nobody/")

    with django_assert_num_queries(1):
        response = call("/touches-nobody/")

    assert response.json() == {"pk": issued.key.owner_id, "in": True}


# --- The headers of what is no refusal ------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status", "cache_control"),
    [
        pytest.param("/raising/http404/", 404, "private", id="http404"),
        pytest.param("/raising/denied/", 403, "no-store", id="denied"),
        pytest.param("/raising/bug/", 500, "private", id="bug"),
        pytest.param("/forbidding/", 403, "private", id="forbidden-by-an-answer"),
        pytest.param("/templated/", 200, "private", id="template"),
        pytest.param("/strictly/", 200, "no-store, max-age=0", id="stricter-view"),
    ],
)
def test_answer_of_the_view_is_for_nobody_else(path, status, cache_control, call):
    client = Client(raise_request_exception=False)

    response = call(path, client=client)

    assert response.status_code == status
    assert response["Cache-Control"] == cache_control
    assert {"Authorization", "X-API-Key"} <= set(response["Vary"].split(", "))


def test_view_that_raises_tells_what_is_left(issue, call):
    secret = issue(rate_limit="9/s").secret

    response = call("/raising/http404/", secret=secret)

    assert response["RateLimit"] == '"key";r=8;t=1'


def test_view_that_answers_nothing_is_told_of_by_django(call):
    with pytest.raises(ValueError, match=r"nothing didn't return an HttpResponse object"):
        call("/nothing/")


# --- The caches -----------------------------------------------------------------------------

CACHED = [pattern.pattern._route for pattern in urlpatterns if "cached" in str(pattern.pattern)]


@pytest.fixture(params=[*CACHED, "told/"])
def cached(request, settings):
    """The path of a view that Django caches: by a decorator, or with the whole site."""
    if request.param == "told/":
        settings.MIDDLEWARE = [
            "django.middleware.cache.UpdateCacheMiddleware",
            *settings.MIDDLEWARE,
            "django.middleware.cache.FetchFromCacheMiddleware",
        ]
    cache.clear()
    yield f"/{request.param}"
    cache.clear()


def test_answer_is_not_given_to_another_key(cached, issue, call):
    call(cached)
    other = issue()

    response = call(cached, secret=other.secret)

    assert response.json()["key"] == other.key.current_secret.public_id


def test_answer_is_not_given_to_nobody(cached, call):
    call(cached)

    assert Client().get(cached).status_code == 401


def test_answer_is_not_given_again(cached, call):
    assert call(cached).json()["number"] != call(cached).json()["number"]


def test_answer_does_not_outlive_a_revoke(cached, issued, call):
    call(cached)
    services.revoke_key(key=issued.key)

    assert call(cached).status_code == 401


# --- What a request costs and counts --------------------------------------------------------


def test_request_is_counted_by_its_route(counting, call):
    call("/raising/http404/")

    assert counted() == [("raising/<str:error>/", "GET", "4xx", 1)]


def test_view_that_is_guarded_twice_is_counted_once(counting, issue, call):
    secret = issue(scopes=["jobs:read"], rate_limit="9/s").secret

    response = call("/twice/", secret=secret)

    assert response["RateLimit"] == '"key";r=8;t=1'
    assert counted() == [("twice/", "GET", "2xx", 1)]


def test_cost_is_of_the_quota(call, settings):
    settings.APIKEYS_PLANS = {"free": {"quota": 10**9}}
    settings.APIKEYS_POLICY = "tests.faces.test_same_answers.FreePolicy"
    cache.clear()

    response = call("/costly/")

    assert response["RateLimit"].startswith('"quota";r=999999995;t=')


def test_scope_may_be_one_text(issue, call):
    assert call("/text/").status_code == 200
    assert call("/text/", secret=issue(scopes=["jobs:read"]).secret).status_code == 403


@pytest.mark.parametrize(
    ("path", "status"),
    [("/of-jobs/", 403), ("/by-get/", 403), ("/by-options/", 200), ("/text/", 200)],
)
def test_options_goes_past_no_scope(path, status, call):
    """A function may do by it what it does by any other method."""
    assert call(path, "options").status_code == status


def test_a_list_that_is_emptied_later_opens_nothing(call):
    scopes = ["jobs:read"]
    guarded = api_key_required(scopes=scopes)(told)
    scopes.clear()

    assert guarded.apikeys_declaration.required_scopes == ["jobs:read"]


@pytest.mark.parametrize("headers", [{}, bearer("rak_nonsense")], ids=["nothing", "malformed"])
@pytest.mark.parametrize("atomic", [True, False])
def test_refusal_undoes_the_transaction_of_the_request(atomic, headers, db, monkeypatch):
    """As an exception of the view would, and REST framework does."""
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", atomic)

    response = Client().get("/writes-first/", headers=headers)

    assert response.status_code == 401
    assert get_user_model().objects.filter(username="written").exists() is not atomic


# --- In the event loop ----------------------------------------------------------------------


class WatchedCache(LocMemCache):
    """Counts in no event loop."""

    def add(self, *args, **kwargs):
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        return super().add(*args, **kwargs)


@pytest.fixture
def hops(monkeypatch):
    """What was handed to a thread, in its order."""
    found = []
    original = SyncToAsync.__call__

    def counted(self, *args, **kwargs):
        found.append(self.func.__qualname__)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(SyncToAsync, "__call__", counted)
    return found


def ask(view, secret):
    request = AsyncRequestFactory().get("/", headers=bearer(secret))
    return async_to_sync(view)(request)


@pytest.mark.parametrize("secret", [None, "rak_nonsense"], ids=["good", "refused"])
def test_async_view_goes_to_a_thread_once(secret, issue, hops, settings):
    settings.CACHES = {"default": {"BACKEND": f"{__name__}.WatchedCache", "LOCATION": "watched"}}

    response = ask(ahello, secret or issue(rate_limit="9/m").secret)

    assert response.status_code == (401 if secret else 200)
    assert len(hops) == 1
    assert response.has_header("RateLimit") is (secret is None)


def test_session_beside_a_key_is_ignored_by_auser(issued, as_bob):
    client = AsyncClient()
    client.cookies = as_bob.cookies

    response = async_to_sync(client.get)("/acaller/", headers=bearer(issued.secret))

    assert response.json() == {"auser": "ann", "user": "ann"}


def test_auser_of_a_key_of_the_project_is_nobody_in_particular(issue, hops):
    response = ask(acaller, issue(owner=None).secret)

    assert response.content == b'{"auser": "", "user": ""}'
    assert len(hops) == 1


@pytest.fixture
def cancelled(issued):
    """A function that cancels a request of the key: while it is verified, or waits for that."""

    def cancelled(*, begun):
        released = threading.Event()
        asked = []

        async def scenario():
            loop, looked_up = asyncio.get_running_loop(), asyncio.Event()

            def slow(execute, sql, *args):
                asked.append(sql)
                loop.call_soon_threadsafe(looked_up.set)
                return released.wait(5) and execute(sql, *args)

            before = asyncio.create_task(sync_to_async(bool if begun else released.wait)())
            await asyncio.sleep(0)
            request = AsyncRequestFactory().get("/", headers=bearer(issued.secret))
            with of_this_thread.execute_wrapper(slow):
                answer = asyncio.create_task(APIKeyMiddleware(ahello)(request))
                await (looked_up.wait() if begun else asyncio.sleep(0.01))
                answer.cancel()
                await asyncio.sleep(0.01)
                assert not answer.done() or not begun
                released.set()
                await asyncio.wait({before, answer})
            assert answer.cancelled()

        of_this_thread = connections[DEFAULT_DB_ALIAS]
        async_to_sync(scenario)()
        return asked

    return cancelled


def test_request_that_is_cancelled_while_its_key_is_verified_is_counted(counting, cancelled):
    assert cancelled(begun=True)

    assert counted() == [("", "GET", "4xx", 1)]


def test_request_that_is_cancelled_before_is_not_verified(counting, cancelled):
    assert cancelled(begun=False) == []

    assert counted() == []


# --- What a developer does wrong ------------------------------------------------------------


@pytest.mark.parametrize(
    "decorate",
    [
        pytest.param(lambda: api_key_required(told), id="bare"),
        pytest.param(lambda: api_key_required(), id="without-scopes"),  # noqa: PLW0108 - reads so
        pytest.param(lambda: api_key_required("jobs:read"), id="scopes-by-position"),
        pytest.param(lambda: api_key_required(scopes=None), id="none"),
    ],
)
def test_decorator_is_told_what_a_key_needs(decorate):
    with pytest.raises(TypeError, match=r'@api_key_required\(scopes=\["orders:read"\]\)'):
        decorate()


@pytest.mark.parametrize(
    "scopes",
    [
        pytest.param(["jobs"], id="no-action"),
        pytest.param(["jobs:*"], id="wildcard"),
        pytest.param({"GET": ["jobs"]}, id="in-a-dict"),
        pytest.param((scope for scope in ["jobs:read"]), id="used-up-by-the-first-request"),
        pytest.param([["jobs:read"]], id="list-in-a-list"),
        pytest.param(5, id="number"),
    ],
)
def test_scopes_are_scopes(scopes):
    with pytest.raises(ValueError, match=r"^@api_key_required takes scopes of the form resource"):
        api_key_required(scopes=scopes)


@pytest.mark.parametrize("cost", [-1, 1.5, None, True, 10**9 + 1])
def test_cost_is_a_number_of_units(cost):
    with pytest.raises(ValueError, match=r"a number of units, from 0 to 1000000000\.$"):
        api_key_required(scopes=[], cost=cost)


def test_name_and_docstring_are_those_of_the_view():
    assert (nothing.__name__, nothing.__doc__) == ("nothing", "Answer nothing, by mistake.")


def test_rest_framework_is_not_loaded():
    script = (
        "import sys, django\n"
        "from django.conf import settings\n"
        "settings.configure(INSTALLED_APPS=['django.contrib.auth', "
        "'django.contrib.contenttypes', 'django_apikeys'], SECRET_KEY='x')\n"
        "django.setup()\n"
        "import django_apikeys.decorators\n"
        "sys.exit('rest_framework' in sys.modules)\n"
    )

    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0  # noqa: S603 - our own
