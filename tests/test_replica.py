"""What tells whether a key is good comes from the primary: a replica lags behind a revoke.

The replica of these routers is no database at all, so that to ask it is an error.
"""

import pytest
from django.contrib.auth import get_user_model
from django.utils.connection import ConnectionDoesNotExist

from django_apikeys import verification
from django_apikeys.models import APIKey, APIKeyEvent, APIKeySecret
from tests.conftest import bearer


class ReplicaOfAll:
    """Reads from the replica whatever there is."""

    def db_for_read(self, model, **hints):
        return "replica"

    def db_for_write(self, model, **hints):
        return "default"


class ReplicaOfOurs(ReplicaOfAll):
    """Reads our own tables from the replica, users and sessions from the primary."""

    def db_for_read(self, model, **hints):
        return "replica" if model._meta.app_label == "django_apikeys" else "default"


@pytest.fixture
def all_from_replica(issued, settings):
    settings.DATABASE_ROUTERS = ["tests.test_replica.ReplicaOfAll"]


@pytest.fixture
def ours_from_replica(issued, as_user, settings):
    settings.DATABASE_ROUTERS = ["tests.test_replica.ReplicaOfOurs"]


@pytest.fixture
def path(issued):
    return f"/api/keys/{issued.key.pk}/"


@pytest.mark.usefixtures("all_from_replica")
@pytest.mark.parametrize("model", [APIKey, APIKeySecret, get_user_model()])
def test_replica_is_what_a_plain_read_asks(model):
    with pytest.raises(ConnectionDoesNotExist):
        model.objects.first()


@pytest.mark.usefixtures("all_from_replica")
def test_listed_keys_come_from_the_primary(issued):
    keys = APIKey.objects.listed()

    assert keys.db == "default"
    assert keys.filter(name="a key").search(issued.key.name).db == "default"
    assert [key.masked for key in keys] == [issued.key.masked]


@pytest.mark.usefixtures("all_from_replica")
def test_key_is_verified_by_the_primary(issued, rf):
    grant = verification.verify(rf.get("/", headers=bearer(issued.secret)))

    assert grant.key_id == issued.key.pk


@pytest.mark.usefixtures("all_from_replica")
def test_owner_and_key_of_a_grant_come_from_the_primary(issued, user, rf):
    grant = verification.verify(rf.get("/", headers=bearer(issued.secret)))

    assert grant.owner == user
    assert grant.key == issued.key
    assert (grant.owner._state.db, grant.key._state.db) == ("default", "default")


@pytest.mark.usefixtures("all_from_replica")
def test_key_reads_itself_from_the_primary(issued, client):
    response = client.get("/api/keys/self/", headers=bearer(issued.secret))

    assert response.status_code == 200
    assert response.json()["masked"] == issued.key.masked


@pytest.mark.usefixtures("ours_from_replica")
def test_list_comes_from_the_primary(issued, as_user):
    response = as_user.get("/api/keys/")

    assert [key["masked"] for key in response.json()["data"]] == [issued.key.masked]


@pytest.mark.usefixtures("ours_from_replica")
def test_key_is_retrieved_from_the_primary(path, as_user):
    response = as_user.get(path)

    assert response.json()["status"] == "active"


@pytest.mark.usefixtures("ours_from_replica")
def test_key_is_created_in_the_primary(as_user):
    response = as_user.post("/api/keys/", {"name": "new"})

    assert response.status_code == 201


@pytest.mark.usefixtures("ours_from_replica")
def test_change_is_shown_at_once(path, as_user):
    response = as_user.patch(path, {"name": "new"})

    assert response.json()["name"] == "new"


@pytest.mark.usefixtures("ours_from_replica")
def test_revoke_is_shown_at_once(path, as_user, client, issued):
    response = as_user.post(f"{path}revoke/")

    assert response.json()["status"] == "revoked"
    assert client.get("/customers/", headers=bearer(issued.secret)).status_code == 401


@pytest.mark.usefixtures("ours_from_replica")
def test_key_is_deleted_in_the_primary(path, as_user):
    deleted = as_user.delete(path)

    assert deleted.status_code == 204
    assert as_user.get(path).status_code == 404


@pytest.fixture
def manager(issue, settings):
    """A key that manages keys and itself, and has not been used; ours is read from the replica."""
    issued = issue(scopes=["customers:read", "apikeys:write", "self:rotate"])
    settings.DATABASE_ROUTERS = ["tests.test_replica.ReplicaOfOurs"]
    return issued


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/keys/", {"name": "new"}),
        ("/api/keys/self/rotate/", {}),
        ("/api/keys/self/rotate/", {"starts": "first_use"}),
    ],
)
def test_key_that_asks_for_a_change_is_confirmed_by_the_primary(path, body, manager, client):
    answer = client.post(path, body, headers=bearer(manager.secret))

    assert answer.status_code == 201
    assert client.get("/customers/", headers=bearer(answer.json()["secret"])).status_code == (
        200 if "self" in path else 403
    )


def test_retired_secret_is_noted_from_the_primary(manager, client):
    client.post("/api/keys/self/rotate/", {"compromised": True}, headers=bearer(manager.secret))

    answer = client.get("/customers/", headers=bearer(manager.secret))

    assert answer.json()["code"] == "retired_secret"
    events = APIKeyEvent.objects.using("default").filter(type="retired_secret_used")
    assert events.count() == 1


@pytest.mark.usefixtures("ours_from_replica")
def test_secret_is_rotated_and_retired_in_the_primary(path, as_user):
    assert as_user.post(f"{path}rotate/").status_code == 201
    assert as_user.post(f"{path}retire/").json()["previous_secret"] is None
