"""Somebody of one organisation tries to get at the keys of another, or past their role."""

import pytest

from django_apikeys import services
from django_apikeys.models import APIKey, APIKeyEvent
from tests.example_project.conftest import Client

KEYS = "/api/v1/keys/"
EVENTS = "/api/v1/events/"
FORM = "application/x-www-form-urlencoded"


@pytest.fixture
def victim(issue, globex):
    """A key of Globex."""
    return issue("jobs:read", name="of globex", owner=globex)


@pytest.fixture
def of_both(db, factories, acme, globex):
    """Make the client of one who is Owner of Acme, and has *role* in Globex."""

    def of_both(role):
        membership = factories.MembershipFactory.create(organisation=acme, role="owner")
        factories.MembershipFactory.create(organisation=globex, role=role, user=membership.user)
        client = Client()
        client.force_login(membership.user)
        return client

    return of_both


def url(issued, tail=""):
    return f"{KEYS}{issued.key.pk}/{tail}"


def reason(answer):
    return answer.status_code, answer.json()["error"]["reason"]


def stored():
    events = APIKeyEvent.objects.order_by("pk").values_list("type", "key_id")
    return list(APIKey.objects.order_by("pk").values()), list(events)


OWNERS = {
    "as a number": lambda pk: pk,
    "as a text": str,
    "in a list": lambda pk: [pk],
    "in an object": lambda pk: {"id": pk},
    "true": lambda pk: True,
    "null": lambda pk: None,
    "empty": lambda pk: "",
    "as a fraction": float,
    "by its slug": lambda pk: "globex",
}


@pytest.fixture
def makers(person, program, acme):
    """Those who may make keys of Acme."""
    return {
        "Owner": person("owner", acme),
        "a key": program("*", "apikeys:read", "apikeys:write"),
    }


@pytest.mark.parametrize("as_sent", OWNERS.values(), ids=OWNERS)
@pytest.mark.parametrize("maker", ["Owner", "a key"])
def test_no_key_is_made_for_another_organisation(maker, as_sent, makers, globex):
    before = stored()

    answer = makers[maker].post(KEYS, {"name": "x", "owner": as_sent(globex.pk)})

    assert reason(answer) == (400, "invalid")
    assert answer.json()["error"]["fields"].keys() == {"owner"}
    assert stored() == before


@pytest.mark.parametrize("as_sent", OWNERS.values(), ids=OWNERS)
def test_no_key_is_moved_to_another_organisation(as_sent, of_both, issue, globex):
    """Not even by one who may do everything in both."""
    issued = issue()
    before = stored()

    answer = of_both("owner").patch(url(issued), {"owner": as_sent(globex.pk)})

    assert answer.json()["error"]["fields"].keys() == {"owner"}
    assert stored() == before


@pytest.mark.parametrize("role", ["admin", "member"])
def test_role_in_one_organisation_is_none_in_another(role, of_both, victim, globex):
    """An Owner of Acme is in Globex what they are there."""
    caller = of_both(role)
    before = stored()

    answers = [
        caller.post(KEYS, {"name": "x", "owner": globex.pk}),
        caller.patch(url(victim), {"scopes": []}),
        caller.patch(url(victim), {"enabled": False}),
        caller.delete(url(victim)),
    ]

    assert caller.get(url(victim)).status_code == 200
    assert [reason(answer) for answer in answers] == [(403, "permission_denied")] * 4
    assert stored() == before


def test_member_ends_no_key_by_revoking_one_that_made_it(person, acme, issue):
    """A Member may not revoke, and ``cascade`` is no way around it."""
    parent, child = issue(name="parent"), issue(name="child")
    APIKey.objects.filter(pk=child.key.pk).update(created_by_key=parent.key)
    before = stored()

    answer = person("member", acme).post(url(parent, "revoke/"), {"cascade": True})

    assert reason(answer) == (403, "permission_denied")
    assert stored() == before


@pytest.mark.parametrize("role", ["owner", "admin"])
def test_cascade_does_not_cross_from_one_organisation_to_another(
    role, person, acme, issue, victim
):
    """Whoever may revoke for Acme revokes nothing of Globex, whatever made what."""
    parent = issue(name="parent")
    APIKey.objects.filter(pk=victim.key.pk).update(created_by_key=parent.key)

    person(role, acme).post(url(parent, "revoke/"), {"cascade": True})

    assert APIKey.objects.get(pk=victim.key.pk).revoked_at is None


def test_role_that_was_taken_away_is_gone_at_once(of_both, victim, globex):
    caller = of_both("owner")
    before = caller.patch(url(victim), {"description": "mine"})
    globex.memberships.update(role="member")

    after = caller.patch(url(victim), {"description": "still mine"})

    assert (before.status_code, reason(after)) == (200, (403, "permission_denied"))


def test_key_of_one_who_is_in_both_stays_in_its_own(of_both, victim, acme):
    """A key is its organisation's, not that of the person who made it."""
    scopes = ["*", "apikeys:read", "apikeys:write"]
    made = of_both("owner").post(KEYS, {"name": "x", "scopes": scopes, "owner": acme.pk})
    caller = Client()
    caller.credentials(HTTP_AUTHORIZATION=f"Bearer {made.json()['data']['secret']}")

    answers = [caller.get(url(victim)), caller.patch(url(victim), {}), caller.delete(url(victim))]

    assert [answer.status_code for answer in answers] == [404, 404, 404]
    assert [key["name"] for key in caller.get(KEYS).json()["data"]] == ["x"]


def test_filters_look_into_no_other_organisation(program, victim, globex):
    caller = program("apikeys:read", name="of acme")
    public_id = victim.key.current_secret.public_id

    by_owner = [caller.get(path, {"owner": globex.pk}) for path in (KEYS, EVENTS)]
    found = [
        caller.get(KEYS, {"search": public_id}),
        caller.get(KEYS, {"search": victim.secret}),
        caller.get(EVENTS, {"key": victim.key.pk}),
    ]

    assert [reason(answer) for answer in by_owner] == [(400, "invalid")] * 2
    assert [answer.json()["data"] for answer in found] == [[], [], []]


@pytest.mark.parametrize("role", ["admin", "member"])
def test_form_is_no_way_around_a_role(role, person, acme, issue):
    issued = issue(enabled=False)
    caller = person(role, acme)
    before = stored()

    answers = [
        caller.post(KEYS, "name=x&scopes=%2A", content_type=FORM),
        caller.patch(url(issued), "enabled=on", content_type=FORM),
        caller.post(
            url(issued),
            "_method=PATCH&enabled=on",
            content_type=FORM,
            headers={"X-HTTP-Method-Override": "PATCH"},
        ),
    ]

    assert [answer.status_code for answer in answers] == [403, 403, 405]
    assert stored() == before


def test_session_of_an_owner_gives_a_key_beside_it_nothing(person, acme, issue):
    """The key decides alone: what it lacks is not taken from the person."""
    bare = issue(name="bare")
    client = person("owner", acme)
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {bare.secret}")
    before = stored()

    answers = [client.get(KEYS), client.post(KEYS, {"name": "x"}), client.delete(url(bare))]

    assert [reason(answer) for answer in answers] == [(403, "insufficient_scope")] * 3
    assert stored() == before


def test_dead_key_beside_the_session_of_an_owner_is_refused(person, acme, issue):
    dead = issue("*", "apikeys:read")
    services.revoke_key(key=dead.key)
    client = person("owner", acme)
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {dead.secret}")

    assert reason(client.get(KEYS)) == (401, "revoked_key")


def test_session_without_its_token_changes_nothing(factories, acme, issue):
    """A foreign page may send a browser's cookie, and no CSRF token."""
    issued = issue()
    client = Client(enforce_csrf_checks=True)
    client.force_login(factories.MembershipFactory.create(organisation=acme, role="owner").user)
    before = stored()

    answers = [
        client.post(KEYS, "name=x&scopes=%2A", content_type=FORM),
        client.post(url(issued, "revoke/"), "cascade=true", content_type=FORM),
        client.delete(url(issued)),
    ]

    assert [reason(answer) for answer in answers] == [(403, "permission_denied")] * 3
    assert stored() == before
