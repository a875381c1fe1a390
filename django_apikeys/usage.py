"""What verified requests leave behind: counters in, flushes out.

A request adds to counters in memory (or, with ``contrib.redis``, in Redis); a flush adds
those to the tables, a few statements however many requests there were. Each flush is a
batch with an id of its own, stored in the batch's own transaction: one that is tried
again, because a COMMIT's answer was lost say, is applied once.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from django.core import mail
from django.core.signals import request_finished
from django.db import connections, router

from django_apikeys import logs
from django_apikeys.batches import Batch
from django_apikeys.conf import conf
from django_apikeys.flushing import apply
from django_apikeys.models import APIKeyTotals

if TYPE_CHECKING:
    from django_apikeys.batches import Hit

# A batch of so many is flushed before its time.
ROWS_AT_ONCE = 10_000


class Recorder(Protocol):
    """Counts hits. One object for the process, made without arguments.

    One that has a method ``reset()``, which drops what was counted and not flushed, lets
    a host's tests start empty by ``testing.reset_usage``.
    """

    def count(self, hit: Hit) -> None:
        """Count *hit*; called when the view has answered. It must not wait for anything."""

    def flush(self) -> int:
        """Move all that was counted to the database; return the number of its rows."""


class MemoryRecorder:
    """Counts in this process; a thread of its own flushes.

    What is lost at most is what was not flushed when the process ends without Python's
    exit handlers: by SIGKILL, a signal that nobody handles, or ``os._exit``.
    """

    def __init__(self) -> None:
        # By process: a forked child that went on with what its parent has counted would
        # flush it twice. Looked up by each count, since uWSGI forks without Python's hooks.
        self._states: dict[int, State] = {}
        atexit.register(self._at_exit)
        request_finished.connect(self._where_no_thread_runs)

    def count(self, hit: Hit) -> None:
        state = self._states.get(os.getpid()) or self._own()
        with state.lock:
            state.live.add(hit)
            many = len(state.live.usage) >= ROWS_AT_ONCE
        if many:
            state.wake.set()
        if not state.begun:
            self._begin(state)

    def flush(self) -> int:
        return self._own().flush()

    def reset(self) -> None:
        """Drop what was counted and not flushed."""
        self._own().reset()

    def _own(self) -> State:
        process = os.getpid()
        for other in set(self._states) - {process}:
            self._states.pop(other, None)  # another thread may be here too
        # One step: of two threads that count first, neither loses what the other counted.
        return self._states.setdefault(process, self._made())

    def _made(self) -> State:
        return State()

    def _begin(self, state: State) -> None:
        every = conf.USAGE_FLUSH_SECONDS
        with state.lock:
            if state.begun:
                return
            state.begun = True
            state.by_itself = not _in_a_test_run()
            if every is None or not state.by_itself:
                return
            thread = threading.Thread(
                target=self._run, args=(state,), name="django_apikeys.usage", daemon=True
            )
            # Where none can start, the requests themselves flush.
            with suppress(RuntimeError):
                thread.start()

    def _run(self, state: State) -> None:
        while self._states.get(os.getpid()) is state:
            every = conf.USAGE_FLUSH_SECONDS or 1.0
            state.wake.wait(every)
            state.wake.clear()
            if not state.flush_quietly():
                # Not at once again, whatever wakes it: a database that is down has enough
                # to do.
                threading.Event().wait(every)
            # A connection is this thread's own, and nobody else closes it.
            connections.close_all()

    def _at_exit(self) -> None:
        state = self._states.get(os.getpid())
        if state is not None and state.by_itself:
            state.flush_quietly()

    def _where_no_thread_runs(self, **kwargs: Any) -> None:
        """Flush after an answer was sent, where no thread does: under uWSGI, say.

        There a thread may well be started, and get no time to run.
        """
        every = conf.USAGE_FLUSH_SECONDS
        state = self._states.get(os.getpid())
        if every is None or state is None or not state.by_itself:
            return
        if time.monotonic() - state.tried_at > 3 * every + 1:
            connection = connections[router.db_for_write(APIKeyTotals)]
            # Not get_autocommit(): it would open one, of a database that may be down.
            is_open = connection.connection is not None
            commits = connection.autocommit if is_open else connection.settings_dict["AUTOCOMMIT"]
            if not connection.in_atomic_block and commits:
                state.flush_quietly(wait=False)
                connection.close_if_unusable_or_obsolete()


class State:
    """What one process has counted, and flushes. A recorder of another kind has its own."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.live = Batch()
        # Held by who flushes; by whom that may be asked again, by a signal's receiver.
        self.flushing = threading.RLock()
        self.pending: Batch | None = None  # what is being flushed, or could not be
        self.tried_at = time.monotonic()
        self.wake = threading.Event()
        self.begun = False
        # What tests have counted is flushed by them alone: after the run, the test
        # database is another one.
        self.by_itself = False

    def flush(self) -> int:
        """Move what could not be moved before, and then the rest; return the rows."""
        with self.flushing:
            rows = 0
            if self.pending is not None:
                rows += self._flush(self.pending)
            with self.lock:
                # Under an id of its own: what is tried again is this and no more.
                self.pending, self.live = self.live, Batch()
            return rows + self._flush(self.pending)

    def _flush(self, batch: Batch) -> int:
        if batch:
            apply(batch)
        if self.pending is batch:
            self.pending = None
        return len(batch)

    def flush_quietly(self, *, wait: bool = True) -> bool:
        """Flush, unless somebody does and *wait* is False; tell whether nothing failed."""
        if not self.flushing.acquire(blocking=wait):
            return True
        try:
            # Before it is tried: where the database hangs, not each request tries.
            self.tried_at = time.monotonic()
            self.flush()
        except Exception:  # noqa: BLE001 - a thread that ends would count and never flush
            logs.once_a_minute(
                "flush", "The usage of API keys could not be stored; it is kept.", exc_info=True
            )
            return False
        finally:
            self.flushing.release()
        return True

    def reset(self) -> None:
        with self.flushing, self.lock:
            self.live, self.pending = Batch(), None


def _in_a_test_run() -> bool:
    # Django's test runner and pytest-django set it, and so does the locmem mail backend,
    # which may be used elsewhere too. There a flush by itself would write into a transaction
    # that it cannot see, or into a database that is being dropped.
    return hasattr(mail, "outbox") and "django.test.utils" in sys.modules
