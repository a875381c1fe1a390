"""The whole life of keys, at random: what each secret that was ever issued must answer.

The model below is written from the contract, not from the code: after each step every
secret of every key is sent, and answered as the model says.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from unittest import mock

import pytest
from django.db import transaction
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from rest_framework.test import APIClient

from django_apikeys import services
from django_apikeys.exceptions import Conflict
from django_apikeys.models import APIKey
from tests.conftest import bearer
from tests.factories import UserFactory

BEGIN = datetime(2026, 11, 21, tzinfo=UTC)
MOST_KEYS = 2
HOURS = st.integers(0, 72)


@dataclass
class Secret:
    """role: current, previous or retired. ends: None, where a previous one waits."""

    text: str
    role: str = "current"
    ends: datetime | None = None
    waits: int | None = None  # seconds of the grace that its first use begins
    used: bool = False


@dataclass
class Key:
    """What the contract says that there is of a key."""

    id: object
    secrets: list[Secret]
    enabled: bool = True
    expires: datetime | None = None
    revoked: bool = False

    def state(self, now):
        if self.revoked:
            return "revoked_key"
        if not self.enabled:
            return "disabled_key"
        return "expired_key" if self.expires and self.expires <= now else 200

    def alive(self, role, now):
        for secret in self.secrets:
            if secret.role == role and not (secret.ends and secret.ends <= now):
                return secret
        return None

    def answer(self, secret, now):
        over = secret.role == "retired" or (secret.ends and secret.ends <= now)
        return "retired_secret" if over else self.state(now)

    def grace_from(self, moment, seconds):
        end = moment + timedelta(seconds=seconds)
        return min(end, self.expires) if self.expires else end


class Life(RuleBasedStateMachine):
    """Whatever is done to keys, in whatever order."""

    keys = Bundle("keys")

    def __init__(self):
        super().__init__()
        self.block = transaction.atomic()
        self.block.__enter__()
        self.now = BEGIN
        self.clock = mock.patch("django.utils.timezone.now", side_effect=lambda: self.now)
        self.clock.start()
        self.owner = UserFactory()
        self.all = []

    def teardown(self):
        self.clock.stop()
        transaction.set_rollback(True)
        self.block.__exit__(None, None, None)

    # What is done ---------------------------------------------------------------------

    # A few keys, of which much comes to be; and one that ends is not the rule.
    @precondition(lambda self: len(self.all) < MOST_KEYS)
    @rule(
        target=keys,
        hours=st.none() | st.integers(1, 72),
        enabled=st.sampled_from([True, True, False]),
    )
    def create(self, hours, enabled):
        expires = None if hours is None else self.now + timedelta(hours=hours)
        issued = services.create_key(
            owner=self.owner,
            name="a key",
            scopes=["customers:read"],
            expires_at=expires,
            enabled=enabled,
        )
        key = Key(issued.key.pk, [Secret(issued.secret)], enabled, expires)
        self.all.append(key)
        return key

    @rule(key=keys)
    def rename(self, key):
        self._changed(key, name="another name")

    @rule(key=keys, enabled=st.booleans())
    def switch(self, key, enabled):
        if self._changed(key, enabled=enabled):
            key.enabled = enabled

    @rule(key=keys, hours=st.none() | st.integers(1, 72))
    def move_the_end(self, key, hours):
        expires = None if hours is None else self.now + timedelta(hours=hours)
        if self._changed(key, expires_at=expires):
            key.expires = expires

    @rule(
        key=keys,
        seconds=st.sampled_from([0, 3600, 86_400, 2_592_000]),
        starts=st.sampled_from(["now", "first_use"]),
    )
    def rotate(self, key, seconds, starts):
        self._rotate(key, seconds, starts, grace_seconds=seconds, starts=starts)

    @rule(key=keys)
    def rotate_what_has_leaked(self, key):
        self._rotate(key, None, "now", compromised=True)

    @rule(key=keys)
    def retire(self, key):
        previous = key.alive("previous", self.now)
        expected = not key.revoked and previous is not None
        assert bool(self._done(services.retire_secret, key)) == expected
        if expected:
            previous.role = "retired"

    @rule(key=keys, end=st.sampled_from([None, services.revoke_key, None, services.delete_key]))
    def end(self, key, end):
        if end is not None:
            assert self._done(end, key)
            key.revoked = True

    @rule(key=keys, place=st.integers(0, 9))
    def use(self, key, place):
        secret = key.secrets[-1 - place % len(key.secrets)]
        answer, _rotated = self._sent(secret)
        assert answer == key.answer(secret, self.now)
        if answer != 200:
            return
        secret.used = True
        if secret.role == "current" and secret.waits is not None:
            previous = key.alive("previous", self.now)
            if previous is not None:
                previous.ends = key.grace_from(self.now, secret.waits)
            secret.waits = None

    @rule(hours=HOURS)
    def wait(self, hours):
        self.now += timedelta(hours=hours, seconds=1)

    # What must hold -------------------------------------------------------------------

    @invariant()
    def every_secret_answers_as_it_must(self):
        for key in self.all:
            for secret in key.secrets:
                with transaction.atomic():
                    answer, rotated = self._sent(secret)
                    # It is asked only: what a first use begins, it does not begin.
                    transaction.set_rollback(True)
                assert answer == key.answer(secret, self.now)
                assert rotated == (answer == 200 and secret.role == "previous")

    @invariant()
    def at_most_two_secrets_are_alive(self):
        for key in self.all:
            alive = [one for one in key.secrets if key.answer(one, self.now) == 200]
            assert len(alive) <= 2

    # How ------------------------------------------------------------------------------

    def _changed(self, key, **changes):
        done = bool(self._done(services.update_key, key, **changes))
        assert done is not key.revoked
        return done

    def _rotate(self, key, seconds, when, **asked):
        current = key.alive("current", self.now)
        previous = key.alive("previous", self.now)
        issued = self._done(services.rotate_key, key, **asked)
        assert bool(issued) == (key.state(self.now) == 200)
        if not issued:
            return
        heir = previous if previous is not None and not current.used else current
        for secret in key.secrets:
            secret.role = "retired"
        if seconds is not None and (seconds or when == "first_use"):
            heir.role = "previous"
            heir.ends = None if when == "first_use" else key.grace_from(self.now, seconds)
        new = Secret(issued.secret, waits=seconds if when == "first_use" else None)
        key.secrets.append(new)

    def _done(self, service, key, **asked):
        try:
            return service(key=APIKey.objects.get(pk=key.id), **asked) or True
        except Conflict:
            return False

    def _sent(self, secret):
        answer = APIClient().get("/customers/", headers=bearer(secret.text))
        code = 200 if answer.status_code == 200 else answer.json()["code"]
        return code, answer.headers.get("X-API-Key-Rotated") == "true"


@pytest.mark.large
@pytest.mark.django_db
def test_every_secret_answers_as_it_must_through_the_whole_life_of_its_key():
    run_state_machine_as_test(
        Life,
        settings=settings(
            max_examples=40,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
