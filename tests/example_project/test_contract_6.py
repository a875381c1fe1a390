"""Rotation, sentence by sentence: section 6 of the contract, and what 4 says of it."""

from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone
from django.utils.http import http_date

from django_apikeys import services
from django_apikeys.models import APIKey, APIKeyEvent, APIKeySecret
from django_apikeys.testing import flush_usage, reset_usage
from tests.example_project.conftest import Client

pytestmark = pytest.mark.django_db
JOBS = "/api/v1/jobs/"
KEYS = "/api/v1/keys/"
DAY = 24 * 60 * 60


@pytest.fixture(autouse=True)
def _counted_from_nothing():
    reset_usage()


@pytest.fixture
def owner(acme, person):
    return person("owner", acme)


@pytest.fixture
def issued(issue):
    return issue("jobs:read", "self:rotate", rate_limit="100/d", metadata={"team": "a"})


@pytest.fixture
def rotate(owner, issued):
    def rotate(key=None, **body):
        return owner.post(f"{KEYS}{(key or issued.key).pk}/rotate/", body)

    return rotate


def call(secret, path=JOBS, method="get", /, **body):
    client = Client()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {secret}")
    return getattr(client, method)(path, body)


def code(secret):
    """Return what a request with *secret* is answered: 200, or the reason against it."""
    answer = call(secret)
    return 200 if answer.status_code == 200 else answer.json()["error"]["reason"]


def new(answer):
    assert answer.status_code == 201
    return answer.json()["data"]["secret"] if "data" in answer.json() else answer.json()["secret"]


def body(answer):
    return answer.json().get("data", answer.json())


def later(monkeypatch, **span):
    """Let it be later; of a frozen moment, so that ends are exact."""
    moment = timezone.now() + timedelta(**span)
    monkeypatch.setattr("django.utils.timezone.now", lambda: moment)
    return moment


# "The key keeps id, name, scopes, limits, counters and history; only the secret changes."


def test_the_key_stays_and_only_the_secret_changes(owner, issued, rotate):
    call(issued.secret)
    flush_usage()
    before = body(owner.get(f"{KEYS}{issued.key.pk}/"))

    rotated = body(rotate())

    after = body(owner.get(f"{KEYS}{issued.key.pk}/"))
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {
        "masked",
        "public_id",
        "previous_secret",
        "rotation_due_at",
        "updated_at",
    }
    assert after == {name: value for name, value in rotated.items() if name != "secret"}
    assert after["usage_count"] == 1
    events = body(owner.get(f"{KEYS}{issued.key.pk}/events/"))
    assert [event["type"] for event in events] == ["rotated", "created"]
    assert set(events[0]["changes"]) == {"public_id", "grace_seconds", "starts"}


def test_the_answer_is_stored_nowhere(rotate):
    assert rotate()["Cache-Control"] == "no-store"


# "At most two secrets are alive. Where one is, it gets the grace."


def test_where_one_is_alive_it_gets_the_grace(issued, rotate, monkeypatch):
    second = new(rotate(grace_seconds=60))

    assert [code(issued.secret), code(second)] == [200, 200]
    later(monkeypatch, seconds=61)
    assert [code(issued.secret), code(second)] == ["retired_secret", 200]


# "Where two are, a further rotation ends the older at once;"


def test_where_two_are_alive_the_older_ends_at_once(issued, rotate):
    second = new(rotate())
    call(second)

    third = new(rotate())

    assert [code(issued.secret), code(second), code(third)] == ["retired_secret", 200, 200]


# "but if the current was never used, that one is replaced and the older lives on with the
# new grace (a rotation whose answer was lost can be repeated)"


def test_a_rotation_whose_answer_was_lost_is_repeated(issued, rotate, monkeypatch):
    lost = new(rotate(grace_seconds=60))

    third = new(rotate(grace_seconds=3600))

    assert [code(issued.secret), code(lost), code(third)] == [200, "retired_secret", 200]
    later(monkeypatch, seconds=1800)
    assert code(issued.secret) == 200
    later(monkeypatch, seconds=1801)
    assert code(issued.secret) == "retired_secret"


# "grace_seconds 0 to 2 592 000, default 86 400, cut at the key's expiry;"


@pytest.mark.parametrize("seconds", [0, 1, 2_592_000])
def test_grace_of(seconds, rotate, monkeypatch):
    now = later(monkeypatch)

    previous = body(rotate(grace_seconds=seconds))["previous_secret"]

    ends = previous and datetime.fromisoformat(previous["valid_until"])
    assert ends == (now + timedelta(seconds=seconds) if seconds else None)


@pytest.mark.parametrize("seconds", [-1, 2_592_001, 1.5, "a day", True, None, [60]])
def test_bad_grace_is_400_and_changes_nothing(seconds, issued, rotate):
    answer = rotate(grace_seconds=seconds)

    assert answer.status_code == 400
    assert list(answer.json()["error"]["fields"]) == ["grace_seconds"]
    assert issued.key.secrets.count() == 1


def test_grace_is_a_day_by_default(rotate, monkeypatch):
    now = later(monkeypatch)

    previous = body(rotate())["previous_secret"]

    assert datetime.fromisoformat(previous["valid_until"]) == now + timedelta(seconds=DAY)


def test_grace_is_cut_at_the_keys_expiry(issue, rotate):
    expires_at = datetime.now(UTC) + timedelta(hours=1)
    key = issue("jobs:read", expires_at=expires_at).key

    previous = body(rotate(key, grace_seconds=DAY))["previous_secret"]

    assert datetime.fromisoformat(previous["valid_until"]) == expires_at


# "starts is now or first_use (the grace begins when the new secret first passes checks 1 to 10;
# until then the old one lives)."


def test_grace_from_the_first_use_begins_with_it(issued, rotate, monkeypatch):
    answer = rotate(grace_seconds=60, starts="first_use")
    assert body(answer)["previous_secret"]["valid_until"] is None
    later(monkeypatch, days=29)

    assert code(issued.secret) == 200
    assert code(new(answer)) == 200
    later(monkeypatch, seconds=59)
    assert [code(issued.secret), code(new(answer))] == [200, 200]
    later(monkeypatch, seconds=2)
    assert [code(issued.secret), code(new(answer))] == ["retired_secret", 200]


def test_grace_from_the_first_use_begins_with_none_that_is_refused(issued, rotate, monkeypatch):
    second = new(rotate(grace_seconds=0, starts="first_use"))

    assert call(second, "/api/v1/customers/").status_code == 403  # its scopes do not let it in

    assert code(issued.secret) == 200
    assert code(second) == 200
    assert code(issued.secret) == "retired_secret"


def test_grace_from_the_first_use_is_cut_at_the_keys_expiry(issue, rotate):
    expires_at = datetime.now(UTC) + timedelta(hours=1)
    issued = issue("jobs:read", expires_at=expires_at)
    call(new(rotate(issued.key, grace_seconds=DAY, starts="first_use")))

    previous = APIKeySecret.objects.get(public_id=issued.key.current_secret.public_id)

    assert previous.retires_at == expires_at


def test_unknown_start_is_400(rotate):
    answer = rotate(starts="tomorrow")

    assert answer.status_code == 400
    assert list(answer.json()["error"]["fields"]) == ["starts"]


# What is compromised: "true ends every earlier secret at once and cannot be joined with a grace."


def test_compromised_ends_every_earlier_secret_at_once(issued, rotate):
    second = new(rotate())
    call(second)

    third = new(rotate(compromised=True))

    codes = [code(issued.secret), code(second), code(third)]
    assert codes == ["retired_secret", "retired_secret", 200]


def test_compromised_ends_the_older_too_where_the_current_was_never_used(issued, rotate):
    second = new(rotate())

    rotate(compromised=True)

    assert [code(issued.secret), code(second)] == ["retired_secret", "retired_secret"]


@pytest.mark.parametrize("grace", [{"grace_seconds": 60}, {"starts": "first_use"}])
def test_compromised_cannot_be_joined_with_a_grace(grace, issued, rotate):
    answer = rotate(compromised=True, **grace)

    assert answer.status_code == 400
    assert list(answer.json()["error"]["fields"]) == list(grace)
    assert code(issued.secret) == 200


# Of both: "Both secrets count against the same limits."


def test_both_secrets_count_against_the_same_limits(issue, rotate):
    issued = issue("jobs:read", rate_limit="2/d")
    second = new(rotate(issued.key))

    statuses = [call(secret).status_code for secret in (issued.secret, second, issued.secret)]

    assert statuses == [200, 200, 429]
    assert call(second).status_code == 429


# "An answer to the previous secret carries X-API-Key-Rotated … and X-API-Key-Expires …"


@pytest.mark.parametrize("path", [JOBS, "/api/v1/customers/"], ids=["200", "403"])
def test_an_answer_to_the_previous_secret_says_so(path, issued, rotate, monkeypatch):
    now = later(monkeypatch)
    rotate(grace_seconds=DAY)

    answer = call(issued.secret, path)

    assert answer["X-API-Key-Rotated"] == "true"
    assert answer["X-API-Key-Expires"] == http_date(now.timestamp() + DAY)


def test_429_to_the_previous_secret_says_so(issue, rotate):
    issued = issue("jobs:read", rate_limit="1/d")
    call(issued.secret)
    rotate(issued.key)

    answer = call(issued.secret)

    assert answer.status_code == 429
    assert answer["X-API-Key-Rotated"] == "true"


def test_an_answer_to_the_current_secret_does_not(rotate):
    answer = call(new(rotate()))

    assert "X-API-Key-Rotated" not in answer
    assert "X-API-Key-Expires" not in answer


def test_whoever_calls_from_a_wrong_address_is_not_told(issue, rotate):
    issued = issue("jobs:read", allowed_ips=["192.0.2.1"])
    rotate(issued.key)

    answer = call(issued.secret)

    assert answer.status_code == 403
    assert "X-API-Key-Rotated" not in answer
    assert "X-API-Key-Expires" not in answer


# "A retired secret that comes back is 401 and leaves an event retired_secret_used, at most
# one per secret and hour, also under ATOMIC_REQUESTS."


def test_a_retired_secret_that_comes_back_leaves_an_event_an_hour(issued, rotate, monkeypatch):
    second = new(rotate(compromised=True))

    for _ in range(3):
        assert call(issued.secret).status_code == 401
    assert reuses() == 1
    later(monkeypatch, minutes=59)
    call(issued.secret)
    assert reuses() == 1
    later(monkeypatch, minutes=2)
    call(issued.secret)

    assert reuses() == 2
    event = APIKeyEvent.objects.latest("id")
    assert (event.key_id, event.actor_kind, event.address) == (
        issued.key.pk,
        "system",
        "127.0.0.1",
    )
    assert event.changes == {"public_id": [issued.secret.split("_")[2], second.split("_")[2]]}


def test_each_retired_secret_leaves_events_of_its_own(issued, rotate):
    second = new(rotate(compromised=True))
    rotate(compromised=True)

    call(issued.secret)
    call(second)

    assert reuses() == 2


@pytest.mark.django_db(transaction=True)
def test_a_retired_secret_leaves_its_event_under_atomic_requests(issued, rotate, atomic_requests):
    rotate(compromised=True)

    assert call(issued.secret).status_code == 401
    assert call(issued.secret).status_code == 401

    assert reuses() == 1


@pytest.fixture
def atomic_requests():
    """Each view in a transaction, which a refusal rolls back."""
    from django.db import connection  # noqa: PLC0415 - only here

    connection.settings_dict["ATOMIC_REQUESTS"] = True
    yield
    connection.settings_dict["ATOMIC_REQUESTS"] = False


def reuses():
    return APIKeyEvent.objects.filter(type="retired_secret_used").count()


# "Two rotations that start from the same secret, or one whose current (a public id, optional)
# is no longer current: one new secret and one 409."


def test_rotation_whose_current_is_no_longer_current_is_409(issued, rotate):
    first = issued.key.current_secret.public_id
    assert rotate(current=first).status_code == 201

    answer = rotate(current=first)

    assert answer.status_code == 409
    assert answer.json()["error"]["reason"] == "conflict"
    assert issued.key.secrets.count() == 2


@pytest.mark.parametrize("current", ["another00000", "x" * 64])
def test_rotation_whose_current_never_was_is_409(current, issued, rotate):
    assert rotate(current=current).status_code == 409
    assert issued.key.secrets.count() == 1


@pytest.mark.parametrize("current", [7, ["a"], "", "x" * 65, "a\x00b"])
def test_current_that_is_none_is_400(current, rotate):
    assert list(rotate(current=current).json()["error"]["fields"]) == ["current"]


def test_of_two_rotations_that_start_from_the_same_secret_one_is_409(issued, rotate, monkeypatch):
    """The other one comes in between this one's look at the key and its lock."""
    rotate_key = services.rotate_key

    def second(**asked):
        monkeypatch.setattr(services, "rotate_key", rotate_key)
        rotate_key(key=APIKey.objects.get(pk=issued.key.pk))
        return rotate_key(**asked)

    monkeypatch.setattr(services, "rotate_key", second)

    assert rotate().status_code == 409
    assert issued.key.secrets.count() == 2


# "Rotating a revoked, disabled or expired key is 409;"


@pytest.mark.parametrize("state", ["revoked", "disabled", "expired"])
def test_rotating_a_key_that_is(state, issued, rotate):
    end = {
        "revoked": lambda: services.revoke_key(key=issued.key),
        "disabled": lambda: services.update_key(key=issued.key, enabled=False),
        "expired": lambda: APIKey.objects.update(expires_at=timezone.now()),
    }
    end[state]()

    answer = rotate()

    assert answer.status_code == 409
    assert issued.key.secrets.count() == 1


# "through a secret in its grace, 403 permission_denied."


def test_rotating_itself_through_a_secret_in_its_grace_is_403(issued, rotate):
    rotate()

    answer = call(issued.secret, f"{KEYS}self/rotate/", "post", grace_seconds="wrong")

    assert answer.status_code == 403
    assert answer.json()["error"]["reason"] == "permission_denied"
    assert issued.key.secrets.count() == 2


def test_rotating_others_through_a_secret_in_its_grace_is_403(issue, rotate):
    manager, target = issue("jobs:read", "apikeys:write"), issue("jobs:read")
    rotate(manager.key)

    answer = call(manager.secret, f"{KEYS}{target.key.pk}/rotate/", "post")

    assert answer.status_code == 403
    assert answer.json()["error"]["reason"] == "permission_denied"


# "Rotating is due 90 days after the last", by default.


@pytest.mark.parametrize("days", [90, 30])
def test_rotating_is_due_after(days, rotate, settings, monkeypatch):
    settings.APIKEYS_ROTATION_DAYS = days
    now = later(monkeypatch)

    due = body(rotate())["rotation_due_at"]

    assert datetime.fromisoformat(due) == now + timedelta(days=days)


# Section 4, of previous_secret: it is null, or tells what is masked, until when it is valid, the
# uses since the rotation, and the last of them.


def test_the_meter_of_the_previous_secret_counts_what_came_after_the_rotation(
    owner, issued, rotate
):
    call(issued.secret)
    call(issued.secret)
    second = new(rotate())
    call(second)
    used_at = timezone.now()
    call(issued.secret)
    flush_usage()

    previous = body(owner.get(f"{KEYS}{issued.key.pk}/"))["previous_secret"]

    assert previous["uses_since_rotation"] == 1
    assert datetime.fromisoformat(previous["last_used_at"]) >= used_at
    assert previous["last_used_ip"] == "127.0.0.1"
    assert previous["masked"] == issued.key.masked


def test_a_previous_secret_whose_grace_is_over_is_none(owner, issued, rotate, monkeypatch):
    rotate(grace_seconds=60)
    later(monkeypatch, seconds=60)

    assert body(owner.get(f"{KEYS}{issued.key.pk}/"))["previous_secret"] is None


def test_a_revoked_key_has_no_previous_secret(owner, issued, rotate):
    rotate()
    services.revoke_key(key=issued.key)

    assert body(owner.get(f"{KEYS}{issued.key.pk}/"))["previous_secret"] is None


# Section 4: "POST keys/{id}/retire/: ends the previous secret now; 409 where there is none".


def test_retire_ends_the_previous_secret_now(owner, issued, rotate):
    second = new(rotate())

    answer = owner.post(f"{KEYS}{issued.key.pk}/retire/", {"reason": "done"})

    assert answer.status_code == 200
    assert body(answer)["previous_secret"] is None
    assert [code(issued.secret), code(second)] == ["retired_secret", 200]
    event = APIKeyEvent.objects.filter(type="retired").get()
    assert (event.reason, event.changes) == (
        "done",
        {"previous_secret": [issued.key.masked, None]},
    )


def test_retire_where_there_is_none_is_409(owner, issued, rotate, monkeypatch):
    url = f"{KEYS}{issued.key.pk}/retire/"
    assert owner.post(url).status_code == 409
    rotate(grace_seconds=60)
    later(monkeypatch, seconds=60)
    assert owner.post(url).status_code == 409
    rotate()
    assert owner.post(url).status_code == 200
    assert owner.post(url).status_code == 409


# Section 4: "keys/self/rotate/: what a key may … do to itself with self:rotate"


def test_a_key_rotates_itself(issued):
    answer = call(issued.secret, f"{KEYS}self/rotate/", "post", grace_seconds=60)

    assert code(new(answer)) == 200
    assert call(issued.secret)["X-API-Key-Rotated"] == "true"
    assert APIKeyEvent.objects.latest("id").actor_id == str(issued.key.pk)


def test_a_key_without_the_scope_does_not(issue):
    secret = issue("jobs:read", "self:revoke").secret

    answer = call(secret, f"{KEYS}self/rotate/", "post")

    assert answer.status_code == 403
    assert answer.json()["error"]["reason"] == "insufficient_scope"


@pytest.mark.parametrize("field", ["id", "owner", "scopes", "secret", "grace"])
def test_unknown_field_is_400(field, issued, rotate):
    assert rotate(**{field: "x"}).status_code == 400
    answer = call(issued.secret, f"{KEYS}self/rotate/", "post", **{field: "x"})
    assert answer.status_code == 400
    assert issued.key.secrets.count() == 1
