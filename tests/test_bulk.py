"""Many keys are revoked: which, in how many statements, and what stays where it ends early."""

import pytest
from django.contrib.auth import get_user_model
from django.db import DatabaseError, OperationalError, connection
from django.utils import timezone

from django_apikeys import services, signals, verification
from django_apikeys.authority import Authority, KeyAuthority
from django_apikeys.exceptions import BeyondCeiling, InvalidInput, KeyRefused, NotPermitted
from django_apikeys.models import APIKey, APIKeyEvent, APIKeySecret
from django_apikeys.policy import UserPolicy
from django_apikeys.services import bulk
from tests.conftest import bearer
from tests.factories import APIKeyFactory, UserFactory
from tests.test_services import listening

pytestmark = pytest.mark.django_db


class RevokingPolicy(UserPolicy):
    """Everyone revokes the keys of whoever is called ``may…``."""

    def owners(self, person, action):
        users = get_user_model()._default_manager
        return users.filter(username__startswith="may") if action == "revoke" else users.none()


@pytest.fixture
def two_at_a_time(monkeypatch):
    monkeypatch.setattr(bulk, "MOST_KEYS", 2)


def alive():
    return set(APIKey.objects.filter(revoked_at=None))


def of(owner):
    return APIKey.objects.filter(owner=owner)


def revoked_events():
    return list(APIKeyEvent.objects.filter(type="revoked").order_by("id"))


# --- Which --------------------------------------------------------------------------------


@pytest.mark.usefixtures("two_at_a_time")
def test_all_keys_of_an_owner_are_revoked(user):
    keys = APIKeyFactory.create_batch(5, owner=user)
    kept = APIKeyFactory()

    run = services.revoke_keys(keys=of(user), actor=kept.owner, reason="Ann has left.")

    assert alive() == {kept}
    assert sorted(run.ids) == sorted(key.pk for key in keys)
    assert (run.refused, run.is_complete) == ({}, True)
    rows = APIKey.objects.filter(owner=user).values_list("revoked_by", "revoked_reason")
    assert set(rows) == {(kept.owner.pk, "Ann has left.")}


@pytest.mark.django_db(transaction=True)
def test_each_has_an_event_and_a_signal(user):
    keys = APIKeyFactory.create_batch(3, owner=user)
    of_the_project = APIKeyFactory(owner=None)

    with listening(signals.key_revoked) as received:
        services.revoke_keys(keys=APIKey.objects.all(), actor=user, reason="leaked")

    events = {event.key_id: event for event in revoked_events()}
    assert {fact["key"] for fact in received} == {*keys, of_the_project}
    assert {fact["reason"] for fact in received} == {"leaked"}
    assert len(events) == 4
    event = events[keys[0].pk]
    assert (event.owner_id, event.owner_name) == (str(user.pk), "ann")
    assert (event.key_masked, event.reason) == (keys[0].masked, "leaked")
    assert (event.actor_kind, event.actor_name) == ("user", "ann")
    assert events[of_the_project.pk].owner_id == ""


def test_what_is_revoked_already_stays_as_it_is(user):
    key = APIKeyFactory(owner=user, revoked=True, revoked_reason="before")
    APIKeyFactory(owner=user, deleted=True)

    run = services.revoke_keys(keys=of(user), reason="now")

    key.refresh_from_db()
    assert (run.ids, run.is_complete) == ([], True)
    assert key.revoked_reason == "before"
    assert revoked_events() == []


@pytest.mark.parametrize(
    "choose",
    [
        list,
        iter,
        lambda keys: keys.order_by("name")[:2],
        lambda keys: keys.listed(),
        lambda keys: keys.filter(secrets__slot=0) | keys.filter(secrets__slot=1),
        lambda keys: keys.with_status("active", timezone.now()),
    ],
    ids=["list", "iterator", "slice", "listed", "join", "status"],
)
def test_keys_may_be_chosen_in_many_ways(choose, user):
    APIKeyFactory.create_batch(2, owner=user)
    kept = APIKeyFactory(name="zz")

    run = services.revoke_keys(keys=choose(of(user)))

    assert alive() == {kept}
    assert (len(run.ids), run.is_complete) == (2, True)


def test_a_key_that_is_named_twice_is_revoked_once(user):
    key = APIKeyFactory()

    run = services.revoke_keys(keys=[key, key])

    assert run.ids == [key.pk]
    assert len(revoked_events()) == 1


def test_a_key_that_is_gone_by_now_holds_up_no_others():
    gone, key = APIKeyFactory.create_batch(2)
    APIKey.objects.filter(pk=gone.pk).delete()

    run = services.revoke_keys(keys=[gone, key])

    assert run.ids == [key.pk]


def test_no_keys_are_no_error():
    run = services.revoke_keys(keys=APIKey.objects.none(), cascade=True)

    assert run == services.RevokedKeys([], {}, True)


def test_a_reason_that_is_too_long_revokes_nothing(user):
    APIKeyFactory(owner=user)

    with pytest.raises(InvalidInput):
        services.revoke_keys(keys=of(user), reason="x" * 501)

    assert len(alive()) == 1


# --- What was made through them -------------------------------------------------------------


@pytest.fixture
def family(user):
    """Three generations: ann's two, one of them revoked; what was made through each; and on."""
    first, dead = APIKeyFactory(owner=user), APIKeyFactory(owner=user, revoked=True)
    deleted = APIKeyFactory(created_by_key=dead, deleted=True)
    children = [APIKeyFactory(created_by_key=first) for _ in range(3)]
    grandchildren = [APIKeyFactory(created_by_key=key) for key in (*children, deleted)]
    return {first, *children, *grandchildren}


@pytest.mark.usefixtures("two_at_a_time")
def test_cascade_reaches_what_was_made_through_them_to_the_last(user, family):
    """Be the one between revoked or deleted."""
    kept = APIKeyFactory()

    foreseen = services.keys_to_revoke(keys=of(user), cascade=True)
    run = services.revoke_keys(keys=of(user), cascade=True)

    assert alive() == {kept}
    assert set(run.ids) == set(foreseen) == {key.pk for key in family}


def test_without_cascade_what_was_made_through_them_is_left(user, family):
    foreseen = services.keys_to_revoke(keys=of(user))
    run = services.revoke_keys(keys=of(user))

    assert len(alive()) == len(family) - 1
    assert run.ids == foreseen


@pytest.mark.parametrize("as_list", [False, True])
def test_cascade_ends_where_keys_made_each_other(as_list, user):
    one, two = APIKeyFactory.create_batch(2, owner=user)
    APIKey.objects.filter(pk=one.pk).update(created_by_key=two)
    APIKey.objects.filter(pk=two.pk).update(created_by_key=one)
    keys = [one] if as_list else of(user)

    foreseen = services.keys_to_revoke(keys=keys, cascade=True)
    run = services.revoke_keys(keys=keys, cascade=True)

    assert sorted(run.ids) == sorted(foreseen) == sorted([one.pk, two.pk])
    assert len(revoked_events()) == 2


def test_to_foresee_changes_nothing(user, family):
    before = list(APIKey.objects.order_by("pk").values())

    services.keys_to_revoke(keys=APIKey.objects.all(), cascade=True)

    assert list(APIKey.objects.order_by("pk").values()) == before
    assert APIKeyEvent.objects.count() == 0


# --- Made meanwhile, interrupted, refused -----------------------------------------------------


@pytest.mark.usefixtures("two_at_a_time")
@pytest.mark.parametrize("cascade", [False, True])
def test_a_key_that_is_made_for_the_owner_meanwhile_is_revoked_too(cascade, user):
    APIKeyFactory.create_batch(4, owner=user)
    made = []

    def make_one(name, done, to_do):
        if len(made) < 2:
            made.append(APIKeyFactory(owner=user))

    run = services.revoke_keys(keys=of(user), cascade=cascade, watch=make_one)

    assert len(made) == 2
    assert alive() == set()
    assert (len(run.ids), run.is_complete) == (6, True)


def test_a_run_ends_where_keys_are_made_as_fast_as_it_revokes_them(user):
    APIKeyFactory(owner=user)

    run = services.revoke_keys(
        keys=of(user), watch=lambda name, done, to_do: APIKeyFactory(owner=user)
    )

    assert len(run.ids) == bulk.MOST_LOOKS == 10
    assert run.is_complete is False
    assert len(alive()) == 1


@pytest.mark.usefixtures("two_at_a_time")
def test_a_run_that_is_interrupted_keeps_what_it_did_and_is_begun_again(user):
    APIKeyFactory.create_batch(5, owner=user)

    def stop(name, done, to_do):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        services.revoke_keys(keys=of(user), watch=stop)
    left = len(alive())
    again = services.revoke_keys(keys=of(user))

    assert left == len(again.ids) == 1
    assert alive() == set()
    assert len(revoked_events()) == 5


@pytest.mark.usefixtures("two_at_a_time")
@pytest.mark.django_db(transaction=True)
def test_a_batch_that_fails_on_its_way_revokes_none_of_it(user, monkeypatch):
    """No key is revoked without its event, and none is told of that lives."""
    APIKeyFactory.create_batch(6, owner=user)
    revoke_row, seen = bulk.revoke_row, []

    def fail_at_the_fourth(key, who, reason):
        seen.append(key)
        if len(seen) == 4:
            raise DatabaseError("gone")
        return revoke_row(key, who, reason)

    monkeypatch.setattr(bulk, "revoke_row", fail_at_the_fourth)

    with listening(signals.key_revoked) as received, pytest.raises(DatabaseError):
        services.revoke_keys(keys=of(user))

    assert len(alive()) == 4
    assert len(revoked_events()) == len(received) == 2


def deadlocks(times):
    """A database that ends a deadlock by the first *times* updates of keys."""
    left = iter(range(times))

    def wrapper(execute, sql, *args):
        if sql.startswith("UPDATE") and next(left, None) is not None:
            raise OperationalError("Deadlock found when trying to get lock")
        return execute(sql, *args)

    return wrapper


@pytest.mark.django_db(transaction=True)
def test_a_batch_that_ends_a_deadlock_is_tried_again(user):
    key = APIKeyFactory(owner=user)
    APIKeyFactory(created_by_key=key)

    with (
        listening(signals.key_revoked) as received,
        connection.execute_wrapper(deadlocks(bulk.TRIES - 1)),
    ):
        run = services.revoke_keys(keys=of(user), cascade=True)

    assert alive() == set()
    assert len(run.ids) == len(revoked_events()) == len(received) == 2


@pytest.mark.django_db(transaction=True)
def test_a_database_that_goes_on_failing_is_not_asked_for_ever(user):
    APIKeyFactory(owner=user)

    with connection.execute_wrapper(deadlocks(bulk.TRIES)), pytest.raises(OperationalError):
        services.revoke_keys(keys=of(user))

    assert len(alive()) == 1


def test_a_batch_within_a_transaction_of_the_caller_is_not_tried_again(user):
    """It was rolled back as a whole: only the caller can begin again."""
    APIKeyFactory(owner=user)

    with connection.execute_wrapper(deadlocks(1)), pytest.raises(OperationalError):
        services.revoke_keys(keys=of(user))


def test_what_is_done_is_watched(user, monkeypatch):
    monkeypatch.setattr(bulk, "MOST_KEYS", 2)
    key = APIKeyFactory(owner=user)
    APIKeyFactory.create_batch(2, owner=user)
    APIKeyFactory(created_by_key=key)
    told = []

    services.revoke_keys(keys=of(user), cascade=True, watch=lambda *facts: told.append(facts))

    assert told == [("keys", 2, 3), ("keys", 3, 3), ("keys", 4, 4)]


@pytest.mark.usefixtures("two_at_a_time")
def test_one_that_the_policy_refuses_holds_up_no_others(settings):
    settings.APIKEYS_POLICY = "tests.test_bulk.RevokingPolicy"
    owners = [UserFactory(username=name) for name in ("may-1", "not-1", "may-2", "not-2")]
    keys = [APIKeyFactory(owner=owner) for owner in owners for _ in range(2)]
    of_the_project = APIKeyFactory(owner=None)
    authority = Authority(UserFactory(staff=True))

    run = services.revoke_keys(keys=APIKey.objects.all(), authority=authority)

    refused = {key for key in keys if key.owner.username.startswith("not")} | {of_the_project}
    assert alive() == refused
    assert set(run.refused) == {key.pk for key in refused}
    assert {type(error) for error in run.refused.values()} == {NotPermitted}
    assert (len(run.ids), run.is_complete) == (4, True)


def test_where_rows_cannot_be_locked_one_that_another_revokes_is_counted_by_it(user, monkeypatch):
    key = APIKeyFactory(owner=user)

    def after_another(key, who, reason):
        APIKey.objects.filter(pk=key.pk).update(revoked_at=timezone.now())
        return revoke_row(key, who, reason)

    revoke_row = bulk.revoke_row
    monkeypatch.setattr(bulk, "revoke_row", after_another)

    run = services.revoke_keys(keys=[key])

    assert run.ids == []
    assert revoked_events() == []


# --- Through a key ----------------------------------------------------------------------------


@pytest.fixture
def manager(issue):
    return issue(name="manager", scopes=["jobs:*", "apikeys:read", "apikeys:write"])


@pytest.fixture
def through(manager, rf):
    grant = verification.verify(rf.get("/", headers=bearer(manager.secret)))
    return {"actor": grant, "authority": KeyAuthority(grant)}


@pytest.mark.usefixtures("two_at_a_time")
def test_a_key_revokes_what_lies_within_it_and_itself_at_last(issue, user, manager, through):
    within = [issue(scopes=["jobs:read"]).key for _ in range(4)]
    child = APIKeyFactory(owner=user, scopes=["jobs:read"], created_by_key=manager.key)
    beyond = issue(scopes=["customers:read"]).key
    of_another = APIKeyFactory()

    run = services.revoke_keys(keys=APIKey.objects.all(), cascade=True, **through)

    assert alive() == {beyond, of_another}
    assert set(run.ids) == {key.pk for key in (*within, child, manager.key)}
    assert run.ids[-1] == manager.key.pk
    assert {id_: type(error) for id_, error in run.refused.items()} == {
        beyond.pk: BeyondCeiling,
        of_another.pk: NotPermitted,
    }


def test_a_key_that_is_dead_by_now_revokes_nothing(issue, user, manager, through):
    issue(scopes=["jobs:read"])
    services.revoke_key(key=manager.key)

    with pytest.raises(KeyRefused):
        services.revoke_keys(keys=of(user), **through)

    assert len(alive()) == 1


# --- How much it costs ------------------------------------------------------------------------


def fill(owner, number):
    keys = APIKey.objects.bulk_create(
        APIKeyFactory.build_batch(number, owner=owner, secret_row=None), batch_size=1000
    )
    APIKeySecret.objects.bulk_create(
        APIKeySecret(key=key, public_id=f"{index:012}", last_four="0000", digest="x")
        for index, key in enumerate(keys)
    )


def statements(work):
    """Return how many statements *work* takes, without those that begin and end a transaction."""
    count = 0

    def counted(execute, sql, *args):
        nonlocal count
        count += "SAVEPOINT" not in sql
        return execute(sql, *args)

    with connection.execute_wrapper(counted):
        work()
    return count


@pytest.mark.parametrize("cascade", [False, True])
@pytest.mark.parametrize("number", [1, 100, 250, pytest.param(2_000, marks=pytest.mark.large)])
def test_two_statements_for_a_key_and_four_or_five_for_a_hundred(number, cascade, user):
    fill(user, number)
    batches = -(-number // 100)

    found = statements(lambda: services.revoke_keys(keys=of(user), cascade=cascade))

    # A look before and one after; for each batch the lock, the owners, the secrets, whether one
    # is kept, and what was made through them.
    assert found == 2 + (5 if cascade else 4) * batches + 2 * number
    assert alive() == set()


def test_the_policy_is_asked_once_for_each_owner(user, monkeypatch):
    monkeypatch.setattr(bulk, "MOST_KEYS", 10)
    fill(user, 40)
    without = statements(lambda: services.keys_to_revoke(keys=of(user)))

    found = statements(lambda: services.revoke_keys(keys=of(user), authority=Authority(user)))

    assert without == 5
    assert found == 2 + 4 * 4 + 2 * 40 + 1


@pytest.mark.usefixtures("retrievable")
def test_what_is_kept_of_their_secrets_is_forgotten(user, issue):
    keys = [issue().key for _ in range(3)]
    services.rotate_key(key=keys[0])

    services.revoke_keys(keys=of(user))

    assert set(APIKeySecret.objects.values_list("encrypted", flat=True)) == {""}
