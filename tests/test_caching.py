import pytest
from django.core.cache import caches
from django.http import HttpResponse
from django.middleware.cache import FetchFromCacheMiddleware, UpdateCacheMiddleware
from django.test import RequestFactory

from django_apikeys.caching import never_store, patch_guarded


def patched(*, to_a_key, refused, **headers):
    response = HttpResponse(
        headers={name.replace("_", "-"): text for name, text in headers.items()}
    )
    patch_guarded(response, to_a_key=to_a_key, refused=refused)
    return response


def directives(response):
    text = response.get("Cache-Control", "")
    return {part.strip() for part in text.split(",") if part}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(None, {"private"}, id="nothing"),
        pytest.param("public", {"private"}, id="public becomes private"),
        pytest.param("public, max-age=60", {"private", "max-age=60"}, id="max-age is kept"),
        pytest.param("private", {"private"}, id="private"),
        pytest.param("no-cache", {"private", "no-cache"}, id="no-cache is kept"),
        pytest.param("no-store", {"no-store"}, id="no-store is kept"),
        pytest.param("No-Store", {"No-Store"}, id="no-store in capitals"),
        pytest.param("no-store, max-age=0", {"no-store", "max-age=0"}, id="no-store and more"),
    ],
)
def test_an_answer_to_a_key_is_private_unless_the_view_was_stricter(before, after):
    headers = {} if before is None else {"Cache_Control": before}

    response = patched(to_a_key=True, refused=False, **headers)

    assert directives(response) == after


@pytest.mark.parametrize("to_a_key", [True, False], ids=["to a key", "to nobody"])
@pytest.mark.parametrize("before", ["public", "private, max-age=60", "no-store", "no-cache"])
def test_a_refusal_is_stored_nowhere(before, to_a_key):
    response = patched(to_a_key=to_a_key, refused=True, Cache_Control=before)

    assert response["Cache-Control"] == "no-store"


@pytest.mark.parametrize("before", ["public", "private, max-age=60", "no-store"])
def test_an_answer_to_others_is_as_the_view_made_it(before):
    response = patched(to_a_key=False, refused=False, Cache_Control=before)

    assert response["Cache-Control"] == before


def test_an_answer_to_others_gets_no_header_of_its_own():
    assert "Cache-Control" not in patched(to_a_key=False, refused=False)


@pytest.mark.parametrize(
    ("to_a_key", "refused"),
    [
        pytest.param(True, False, id="to a key"),
        pytest.param(False, False, id="to another"),
        pytest.param(True, True, id="a key refused"),
        pytest.param(False, True, id="nobody refused"),
    ],
)
@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(None, "Authorization, X-API-Key", id="nothing"),
        pytest.param("Accept", "Accept, Authorization, X-API-Key", id="another"),
        pytest.param("Accept, Cookie", "Accept, Cookie, Authorization, X-API-Key", id="two"),
        pytest.param("x-api-key", "x-api-key, Authorization", id="one of ours, in small letters"),
        pytest.param("*", "*", id="star"),
    ],
)
def test_vary_is_merged_on_every_answer(before, after, to_a_key, refused):
    headers = {} if before is None else {"Vary": before}

    response = patched(to_a_key=to_a_key, refused=refused, **headers)

    assert response["Vary"] == after


def answer(request):
    """What a middleware wraps; none of these calls it."""


class TestNeverStore:
    @pytest.fixture
    def _cache(self, settings):
        settings.CACHES = {
            "default": {
                "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
                "LOCATION": "tests.test_caching",
            }
        }
        yield
        caches["default"].clear()

    @pytest.mark.usefixtures("_cache")
    @pytest.mark.parametrize(
        ("mark", "is_stored"),
        [
            pytest.param(never_store, False, id="marked"),
            pytest.param(lambda request: None, True, id="not marked"),
        ],
    )
    def test_the_cache_middleware_stores_no_answer_to_a_marked_request(self, mark, is_stored):
        request = RequestFactory().get("/")
        fetch = FetchFromCacheMiddleware(answer)
        update = UpdateCacheMiddleware(answer)

        fetch.process_request(request)
        mark(request)
        update.process_response(request, HttpResponse("to a key"))

        stored = fetch.process_request(RequestFactory().get("/"))
        assert (stored is not None) is is_stored
