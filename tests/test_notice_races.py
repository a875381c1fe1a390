"""Runs at the same moment, and runs that are killed: each notice is sent, and by one of them.

On the databases that several processes may ask: the SQLite of the tests is in memory.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from datetime import timedelta

import pytest
from django.db import connection, connections

from django_apikeys.models import APIKeyNotice
from tests.example_project.children import ROOT
from tests.factories import APIKeyFactory
from tests.notice_sender import NOW

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(
        connection.vendor == "sqlite",
        reason="In memory it is one process's own: no second one can send from it.",
    ),
]
LONGEST_WAIT = 120


@pytest.fixture
def told(tmp_path):
    path = tmp_path / "told"
    path.touch()
    return path


def expired(count):
    """Make so many keys that have expired; return what is told of them."""
    at = {"created_at": NOW - timedelta(days=9), "expires_at": NOW - timedelta(days=1)}
    names = [APIKeyFactory(name=f"key {number}", **at).name for number in range(count)]
    return [line for name in names for line in lines_of(name)]


def lines_of(name):
    return (f"signal {name}", f"API key “{name}” has expired")


def sender(told, *arguments):
    """Start a process of ``notice_sender``."""
    database = connection.settings_dict["NAME"]
    module = ("-m", "tests.notice_sender", "--database", database, "--told", told)
    return subprocess.Popen(  # noqa: S603 - this very project
        [sys.executable, *map(str, (*module, *arguments))],
        cwd=ROOT,
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "PYTHONIOENCODING": "utf-8",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def printed(process):
    """Return what *process* has printed, once it is done."""
    out, err = process.communicate(timeout=LONGEST_WAIT)
    assert process.returncode == 0, err
    return json.loads(out)


@pytest.mark.parametrize("processes", [2, 4])
def test_runs_at_the_same_moment_send_each_notice_once(told, tmp_path, processes):
    expected, go = expired(100), tmp_path / "go"
    runs = [sender(told, "--go", go) for _ in range(processes)]
    for run in runs:
        assert run.stdout.readline() == "ready\n"

    go.touch()
    counts = [printed(run) for run in runs]

    assert Counter(told.read_text(encoding="utf-8").splitlines()) == Counter(expected)
    assert sum(counts) == 100
    assert APIKeyNotice.objects.filter(sent_at__isnull=False).count() == 100


def test_what_a_killed_run_leaves_is_sent_and_what_it_marked_is_not_sent_again(told):
    """Wherever it is killed. What it sent and had no time to mark is sent again."""
    expected = expired(1)
    connections.close_all()

    outcomes = printed(sender(told))

    twice = 0
    for outcome in outcomes:
        first, second = outcome["first"], outcome["second"]
        assert {*first, *second} == {*expected}
        marked = [line for name in outcome["marked"] for line in lines_of(name)]
        assert [line for line in marked if line in second] == []
        assert len(first) == len(set(first))
        assert len(second) == len(set(second))
        twice += expected[1] in first and expected[1] in second
    assert [outcome["killed"] for outcome in outcomes] == [True] * (len(outcomes) - 1) + [False]
    assert outcomes[-1]["second"] == []
    assert len(outcomes) > 20
    # Killed right behind the e-mail, at least.
    assert twice > 0
