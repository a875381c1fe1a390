"""Moments, numbers and events, as people read them."""

from datetime import UTC, datetime, timedelta

import pytest
from django.utils import translation

from django_apikeys.models import APIKeyEvent
from django_apikeys.web import charts, words
from django_apikeys.web.words import Moment

NOW = datetime(2026, 5, 3, 10, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("delta", "said"),
    [
        (timedelta(0), "just now"),
        (timedelta(seconds=-59), "just now"),
        (timedelta(seconds=59), "in a moment"),
        (timedelta(minutes=-3), "3 minutes ago"),
        (timedelta(hours=-1, minutes=-59), "1 hour ago"),
        (timedelta(days=2), "in 2 days"),
    ],
)
def test_a_moment_is_told_by_its_distance(delta, said):
    assert Moment(NOW + delta, NOW).relative.replace("\xa0", " ") == said


@pytest.mark.parametrize(
    ("at", "said"),
    [
        pytest.param(NOW, "3 May, 10:12", id="of this year"),
        pytest.param(NOW.replace(year=2025), "3 May 2025, 10:12", id="of another"),
    ],
)
def test_a_moment_is_told_in_short(at, said, settings):
    settings.TIME_ZONE = "UTC"

    assert Moment(at, NOW).short == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("10/s", "10 per second"),
        ("1000/m", "1,000 per minute"),
        ("5/h", "5 per hour"),
        ("5/d", "5 per day"),
        ("", ""),
        (None, ""),
        ("often", "often"),
        ("x/m", "x/m"),
    ],
)
def test_a_rate_is_told_in_words(text, said):
    assert words.rate(text) == said


def test_numbers_are_written_as_the_language_does():
    with translation.override("de"):
        assert words.number(1234567) == "1.234.567"


def event(**fields):
    return words.tell(
        APIKeyEvent(at=NOW, **{"type": "revoked", "actor_kind": "user", **fields}), NOW
    )


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"actor_name": "ann"}, "ann revoked this key"),
        ({"actor_id": "7"}, "7 revoked this key"),
        ({}, "Somebody revoked this key"),
        ({"actor_kind": "key", "actor_name": "Sync"}, "The key “Sync” revoked this key"),
        ({"actor_kind": "command", "actor_name": "x"}, "A command (x) revoked this key"),
        ({"actor_kind": "command"}, "A command revoked this key"),
        ({"actor_kind": "system"}, "The system revoked this key"),
        ({"type": "moved", "actor_name": "50%"}, "50%: moved"),
    ],
)
def test_whoever_did_it_is_named(fields, said):
    assert event(**fields).sentence == said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": ["a", "b"]}, ["name: a → b"]),
        ({"enabled": [True, False], "name": ["a", ""]}, ["name: a → none", "enabled: yes → no"]),
        ({"scopes": [["a:b", "c:d"], ["c:d", "a:b"]]}, ["scopes: another order"]),
        ({"scopes": [["a:b"], None]}, ["scopes: a:b → none"]),
        ({"expires_at": ["soon", None]}, ["expires at: soon → never"]),
        ({"colour": ["red", "blue"]}, ["colour: red → blue"]),
    ],
)
def test_what_changed_is_told_field_by_field(changes, said):
    assert event(type="updated", changes=changes).details == said


@pytest.mark.parametrize(
    ("now", "begins_at"),
    [
        (datetime(2026, 5, 31, 10, tzinfo=UTC), datetime(2025, 6, 2, tzinfo=UTC)),
        (datetime(2026, 1, 1, tzinfo=UTC), datetime(2025, 2, 2, tzinfo=UTC)),
        (datetime(2024, 2, 29, 23, tzinfo=UTC), datetime(2023, 3, 5, tzinfo=UTC)),
    ],
)
def test_twelve_months_end_with_this_one(now, begins_at):
    assert charts.SPANS["12m"].begins_at(now) == begins_at


def test_what_is_little_beside_the_rest_can_still_be_seen():
    series = [
        {
            "start": "2026-05-03T00:00:00Z",
            "requests": 100_001,
            "errors": 1,
            "refused": 0,
            "limited": 0,
        }
    ]

    parts = charts.large(series, charts.SPANS["7d"]).buckets[0].parts

    assert [(part.outcome, part.height) for part in parts] == [("good", 199), ("failed", 1)]
