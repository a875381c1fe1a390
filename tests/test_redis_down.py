"""A Redis that is stopped, started again, and hangs: limits neither fall nor hold up."""

import os
import shutil
import signal
import socket
import subprocess
import time

import pytest
from django.core.cache import caches

from django_apikeys import logs, outage
from django_apikeys.cache_checks import cache_findings
from django_apikeys.outage import breaker
from tests.conftest import bearer

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.skipif(
        shutil.which("redis-server") is None
        # Where a Redis is promised, its absence is a failure.
        and not os.environ.keys() & {"REDIS_URL", "APIKEYS_TEST_REDIS"},
        reason="A Redis of its own is stopped and hung here, and there is no redis-server.",
    ),
]
TIMEOUT = 0.1
# What a request may take beyond the timeout: a busy machine, not a second timeout.
SLACK = 0.09


class Redis:
    """A server of this test alone."""

    def __init__(self, directory):
        self._directory = directory
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._process = None

    def start(self):
        self._process = subprocess.Popen(  # noqa: S603 - our own server
            ["redis-server", "--port", str(self.port), "--save", "", "--appendonly", "no"],  # noqa: S607 - from PATH
            cwd=self._directory,
            stdout=subprocess.DEVNULL,
        )
        self._wait()

    def stop(self):
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()
            self._process = None

    def hang(self):
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self._process.send_signal(signal.SIGCONT)

    def _wait(self):
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        pytest.fail("redis-server did not start.")


@pytest.fixture
def redis(tmp_path, settings, monkeypatch):
    redis = Redis(tmp_path)
    settings.ROOT_URLCONF = "tests.drf.test_throttling"
    settings.CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": f"redis://127.0.0.1:{redis.port}/0",
            "OPTIONS": {"socket_timeout": TIMEOUT, "socket_connect_timeout": TIMEOUT},
        }
    }
    breaker.reset()
    monkeypatch.setattr(logs, "_said_at", {})
    redis.start()
    yield redis
    caches["default"].close()
    redis.stop()
    breaker.reset()


@pytest.fixture
def call(issue, client):
    """Call with a key of two requests a day; return the answer and the seconds it took."""
    headers = bearer(issue(rate_limit="2/d").secret)

    def call():
        begin = time.perf_counter()
        response = client.get("/limited/", headers=headers)
        return response, time.perf_counter() - begin

    call()  # notes the first use, loads what is loaded once
    breaker.reset()
    return call


@pytest.fixture
def reached(monkeypatch):
    """How many connections and commands were tried."""
    tried = []
    from redis.connection import Connection  # noqa: PLC0415 - not on every machine

    for name in ("connect", "send_packed_command"):
        inner = getattr(Connection, name)

        def counted(self, *args, inner=inner, **kwargs):
            tried.append(self)
            return inner(self, *args, **kwargs)

        monkeypatch.setattr(Connection, name, counted)
    return tried


def down(redis, how):
    redis.hang() if how == "hung" else redis.stop()


def test_counts_while_it_is_up(redis, call):
    assert [call()[0].status_code for _ in range(3)] == [200, 429, 429]


@pytest.mark.parametrize("how", ["stopped", "hung"])
def test_down_costs_one_timeout_and_then_nothing(redis, call, how):
    down(redis, how)

    tries = []
    for _ in range(3):
        tries.append([call()[1], call()[1]])
        breaker.reset()

    # The best of three: the machine may be busy.
    assert min(first for first, _ in tries) < TIMEOUT + SLACK
    assert min(second for _, second in tries) < SLACK


@pytest.mark.parametrize("how", ["stopped", "hung"])
@pytest.mark.parametrize(
    ("fail", "status", "wait"),
    [pytest.param("open", 200, None, id="open"), pytest.param("closed", 503, "2", id="closed")],
)
def test_down_answers(request, how, fail, status, wait):
    redis, call, settings = map(request.getfixturevalue, ("redis", "call", "settings"))
    settings.APIKEYS_LIMITS_FAIL = fail
    down(redis, how)

    answers = [call()[0] for _ in range(2)]

    assert [answer.status_code for answer in answers] == [status, status]
    assert answers[0].headers.get("Retry-After") == wait


@pytest.mark.parametrize("how", ["stopped", "hung"])
def test_is_not_asked_while_it_rests(redis, call, reached, how):
    down(redis, how)
    call()
    reached.clear()

    for _ in range(20):
        call()

    assert reached == []


def test_what_was_exceeded_is_not_let_in_when_closed(redis, call, settings):
    settings.APIKEYS_LIMITS_FAIL = "closed"
    before = [call()[0].status_code for _ in range(2)]
    redis.hang()

    during = [call()[0].status_code for _ in range(3)]

    assert (before, during) == ([200, 429], [503, 503, 503])


def test_that_hung_goes_on_where_it_was_after_the_rest(redis, call):
    call()
    redis.hang()
    during = [call()[0].status_code for _ in range(2)]
    redis.go_on()
    time.sleep(outage.REST_SECONDS)

    assert (during, call()[0].status_code) == ([200, 200], 429)


def test_that_was_started_again_begins_to_count_after_the_rest(redis, call):
    redis.stop()
    during = [call()[0].status_code for _ in range(3)]
    redis.start()
    time.sleep(outage.REST_SECONDS)

    assert during == [200, 200, 200]
    assert [call()[0].status_code for _ in range(3)] == [200, 200, 429]


def test_is_told_once(redis, call, caplog):
    redis.stop()
    for _ in range(3):
        call()
        breaker.reset()

    told = [record for record in caplog.records if record.name == "django_apikeys"]
    assert [record.message for record in told] == [
        "The cache did not count for the limits of API keys."
    ]


@pytest.mark.parametrize(
    ("policy", "expected"), [("allkeys-lru", ["django_apikeys.W014"]), ("noeviction", [])]
)
def test_w014_asks_the_server(redis, policy, expected):
    client = caches["default"]._cache.get_client(write=True)
    client.config_set("maxmemory", 100_000_000)
    client.config_set("maxmemory-policy", policy)

    assert [finding.id for finding in cache_findings()] == expected


def test_w014_is_not_found_where_nobody_answers(redis):
    redis.hang()

    assert cache_findings() == []
