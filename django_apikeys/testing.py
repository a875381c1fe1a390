"""For the tests of a host: while tests run, nothing is stored by itself.

    def test_call_is_counted(client, key):
        reset_usage()
        client.get("/customers/", headers={"Authorization": f"Bearer {key.secret}"})
        flush_usage()

        assert key.key.totals.requests == 1

Counts are the process's: those of a test that did not flush are there in the next one,
and belong to keys that were rolled back. ``reset_usage`` in ``setUp``, or in a fixture,
drops them.
"""

from __future__ import annotations

from django_apikeys.conf import conf


def flush_usage() -> int:
    """Store what was counted, on the test's own connection; return the number of rows.

    In a TestCase, or with pytest-django's ``db``, it is rolled back with the test.
    """
    return conf.usage_recorder.flush()


def reset_usage() -> None:
    """Drop what was counted and not flushed.

    A recorder of the host's own has a method ``reset`` for it.
    """
    conf.usage_recorder.reset()  # type: ignore[attr-defined]  # only tests need it
