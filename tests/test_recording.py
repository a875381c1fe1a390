"""What is counted of a request: which route, method, outcome and address, and how often."""

import ipaddress
import uuid
from datetime import UTC, date, datetime
from types import SimpleNamespace

import pytest

from django_apikeys import logs, recording
from django_apikeys.conf import conf
from django_apikeys.recording import Use, note, noted, record

AT = datetime(2026, 5, 1, 9, 30, tzinfo=UTC)
KEY = uuid.UUID(int=1)


class Hits:
    """A recorder that keeps the hits."""

    def __init__(self):
        self.hits = []

    def count(self, hit):
        self.hits.append(hit)

    def reset(self):
        self.hits.clear()


class Broken(Hits):
    def count(self, hit):
        raise ConnectionError


@pytest.fixture
def hits(settings):
    settings.APIKEYS_USAGE_RECORDER = "tests.test_recording.Hits"
    conf.usage_recorder.reset()
    return conf.usage_recorder.hits


@pytest.fixture
def request_of(rf):
    """Make a request, verified unless *use* is None."""

    def request_of(method="GET", route="customers/", **use):
        request = rf.generic(method, "/customers/")
        request.resolver_match = None if route is None else SimpleNamespace(route=route)
        note(request, Use(KEY, 1, "7", AT, ipaddress.ip_address("192.0.2.1"), **use))
        return request

    return request_of


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        pytest.param(200, "2xx", id="200"),
        pytest.param(204, "2xx", id="204"),
        pytest.param(304, "3xx", id="304"),
        pytest.param(404, "4xx", id="404"),
        pytest.param(500, "5xx", id="500"),
        pytest.param(101, "5xx", id="101-which-django-does-not-answer"),
        pytest.param(999, "5xx", id="999"),
    ],
)
def test_outcome_is_the_class_of_the_status(hits, request_of, status, outcome):
    record(request_of(), status)

    assert [hit.outcome for hit in hits] == [outcome]


@pytest.mark.parametrize("outcome", ["refused", "limited"])
def test_outcome_of_a_refusal_is_how_it_was_refused(hits, request_of, outcome):
    record(request_of(outcome=outcome), 403)

    assert [hit.outcome for hit in hits] == [outcome]


@pytest.mark.parametrize(
    ("sent", "stored"),
    [("GET", "GET"), ("OPTIONS", "OPTIONS"), ("PROPFIND", "other"), ("get", "other")],
)
def test_method_is_one_that_is_known_or_other(hits, request_of, sent, stored):
    request = request_of()
    request.method = sent

    record(request, 200)

    assert [hit.method for hit in hits] == [stored]


@pytest.mark.parametrize(
    ("route", "stored"),
    [
        pytest.param("customers/<int:pk>/", "customers/<int:pk>/", id="pattern"),
        pytest.param(None, "", id="none-matched"),
        pytest.param("x" * 300, "x" * 200, id="too-long"),
        pytest.param("a\x00b", "ab", id="nul"),
        pytest.param("a\ud800b", "a?b", id="half-a-surrogate-pair"),
    ],
)
def test_route_is_the_pattern_as_each_database_holds_it(hits, request_of, route, stored):
    record(request_of(route=route), 200)

    assert [hit.route for hit in hits] == [stored]


@pytest.mark.parametrize(
    ("how", "address", "stored"),
    [
        pytest.param(True, "192.0.2.77", "192.0.2.77", id="ipv4"),
        pytest.param(True, "2001:db8::77", "2001:db8::77", id="ipv6"),
        pytest.param(True, "fe80::1%eth0", "fe80::1", id="without-its-zone"),
        pytest.param("network", "192.0.2.77", "192.0.2.0/24", id="network-of-ipv4"),
        pytest.param("network", "2001:db8:1:2::77", "2001:db8:1::/48", id="network-of-ipv6"),
        pytest.param(False, "192.0.2.77", "", id="not-at-all"),
        pytest.param(True, None, "", id="unknown"),
    ],
)
def test_address_is_kept_as_the_setting_says(settings, how, address, stored):
    settings.APIKEYS_STORE_ADDRESSES = how
    value = address and ipaddress.ip_address(address)

    assert recording.stored_address(value) == stored


def test_request_of_no_key_is_not_counted(hits, rf):
    request = rf.get("/")

    record(request, 200)

    assert noted(request) is None
    assert hits == []


def test_request_is_counted_once_however_often_it_is_recorded(hits, request_of):
    """By a middleware that is listed twice, say."""
    request = request_of()

    record(request, 200)
    record(request, 500)

    assert [hit.outcome for hit in hits] == ["2xx"]


def test_request_that_is_verified_again_costs_what_it_has_cost_before(hits, request_of):
    """It is counted by what came of it last: limits are asked once in a request."""
    request = request_of(month=date(2026, 5, 1), units=5, quota=100, totalled=True)
    note(request, Use(KEY, 1, "7", AT, None, outcome="refused"))

    record(request, 403)
    note(request, Use(KEY, 1, "7", AT, None))
    record(request, 200)

    assert [(hit.outcome, hit.month, hit.units, hit.quota, hit.totalled) for hit in hits] == [
        ("refused", date(2026, 5, 1), 5, 100, True)
    ]


def test_recorder_that_fails_costs_no_answer(settings, request_of, caplog, monkeypatch):
    monkeypatch.setattr(logs, "_said_at", {})
    settings.APIKEYS_USAGE_RECORDER = "tests.test_recording.Broken"

    record(request_of(), 200)
    record(request_of(), 200)

    assert [line.getMessage() for line in caplog.records] == [
        "A request with an API key was not counted."
    ]
