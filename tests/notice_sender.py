"""Processes that send the notices that are due, and may be killed at any of their steps.

Run by tests/test_notice_races.py, on the database that the settings name (--database: another
one of that server). What is told by signal and by e-mail is a line each in the file --told.
The steps are before and behind each statement, each COMMIT and each of these lines.

With --go it says that it is ready, waits for that file, sends, and prints how many. Without,
it begins anew for each step there is: one process that is killed there, then another one two
hours later; and prints what each of the two told, and what was marked in between.
"""

import argparse
import json
import os
import signal
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import django
from django.conf import settings
from django.core.mail.backends.base import BaseEmailBackend

NOW = datetime(2026, 11, 20, 10, 37, tzinfo=UTC)
LONGEST_WAIT = 30


class Steps:
    """The steps of a process so far; *last*: that at which it dies."""

    def __init__(self, told, last=None):
        self._told, self._last, self._count = told, last, 0

    def take(self):
        if self._count == self._last:
            os.kill(os.getpid(), signal.SIGKILL)
        self._count += 1

    def around(self, work, *args):
        self.take()
        found = work(*args)
        self.take()
        return found

    def tell(self, line):
        self.around(self._append, line)

    def _append(self, line):
        # One write at the end of the file: lines of two processes do not mix.
        with self._told.open("ab", buffering=0) as file:
            file.write(f"{line}\n".encode())


class TellingBackend(BaseEmailBackend):
    """Writes the subject of each message to the file."""

    steps = None

    def send_messages(self, messages):
        for message in messages:
            self.steps.tell(message.subject)
        return len(messages)


def send(steps, now):
    """Send what is due at *now* by *steps*; return how many."""
    from django.db import connection

    from django_apikeys import notices, signals

    def receiver(key, **kwargs):
        steps.tell(f"signal {key.name}")

    TellingBackend.steps = steps
    signals.key_notice.connect(receiver)
    connection.ensure_connection()
    commit = connection._commit
    connection._commit = lambda: steps.around(commit)
    with connection.execute_wrapper(steps.around):
        sent = notices.send_due(now)
    return sum(sent.counts.values())


def forked(work, *args):
    """Do *work* in a process of its own; return whether that was killed."""
    process = os.fork()
    if not process:
        status = 1
        try:
            work(*args)
            status = 0
        except BaseException:  # noqa: BLE001 - for the parent to see
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(status)
    _process, status = os.waitpid(process, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        sys.exit(1)
    return os.WIFSIGNALED(status)


def killed_at_each_step(told):
    """Return what happened, step by step, to the first at which nobody is killed."""
    from django.db import connections

    from django_apikeys.models import APIKeyNotice

    outcomes, killed = [], True
    while killed:
        APIKeyNotice.objects.all().delete()
        told.write_bytes(b"")
        connections.close_all()  # a child must not have the parent's
        killed = forked(send, Steps(told, len(outcomes)), NOW)
        first = told.read_text(encoding="utf-8").splitlines()
        marked = APIKeyNotice.objects.filter(sent_at__isnull=False)
        names = list(marked.values_list("key__name", flat=True))
        connections.close_all()
        forked(send, Steps(told), NOW + timedelta(hours=2))
        second = told.read_text(encoding="utf-8").splitlines()[len(first) :]
        outcomes.append({"killed": killed, "first": first, "marked": names, "second": second})
    return outcomes


def wait_for(path):
    end = time.monotonic() + LONGEST_WAIT
    while not path.exists():
        if time.monotonic() > end:
            raise TimeoutError(path)
        time.sleep(0.001)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--database", required=True)
    parser.add_argument("--told", type=Path, required=True)
    parser.add_argument("--go", type=Path)
    options = parser.parse_args()
    settings.DATABASES["default"]["NAME"] = options.database
    path = f"{__name__}.TellingBackend"
    if django.VERSION >= (6, 1):
        settings.MAILERS = {"default": {"BACKEND": path}}
    else:
        settings.EMAIL_BACKEND = path
    django.setup()
    if options.go is None:
        print(json.dumps(killed_at_each_step(options.told)))
        return
    print("ready", flush=True)
    wait_for(options.go)
    print(send(Steps(options.told), NOW))


if __name__ == "__main__":
    main()
