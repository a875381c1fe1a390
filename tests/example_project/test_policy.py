"""Who may do what with the keys of an organisation."""

import pytest
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import ObjectDoesNotExist

from django_apikeys.models import APIKey
from django_apikeys.users import APIKeyUser
from django_apikeys.verification import verify
from example_project.crm.demo.client import basic
from example_project.crm.models import Organisation
from example_project.crm.policy import OrganisationPolicy
from tests.example_project.factories import MembershipFactory, OrganisationFactory, UserFactory

policy = OrganisationPolicy()


@pytest.fixture
def callers(person, client, acme, globex):
    return {
        "owner": person("owner", acme),
        "admin": person("admin", acme),
        "member": person("member", acme),
        "rival": person("owner", globex),
        "outsider": person("owner"),
        "inactive owner": person("owner", acme, is_active=False),
        "nobody": client,
    }


#                  list  read  create  patch  revoke  delete
STATUSES = {
    "owner": (200, 200, 201, 200, 200, 204),
    "admin": (200, 200, 403, 403, 200, 403),
    "member": (200, 200, 403, 403, 403, 403),
    "rival": (200, 404, 400, 404, 404, 404),
    "outsider": (200, 404, 403, 404, 404, 404),
    "inactive owner": (401, 401, 401, 401, 401, 401),
    "nobody": (401, 401, 401, 401, 401, 401),
}


@pytest.mark.parametrize("name", STATUSES)
def test_each_role_may_do_what_the_policy_says(name, callers, issue, acme):
    """An Owner may do everything, an Admin see and revoke, a Member see, others nothing."""
    caller, keys = callers[name], "/api/v1/keys/"
    key = f"{keys}{issue().key.pk}/"

    answers = (
        caller.get(keys),
        caller.get(key),
        caller.post(keys, {"name": "new", "owner": acme.pk}),
        caller.patch(key, {"name": "changed"}),
        caller.post(f"{key}revoke/"),
        caller.delete(key),
    )

    assert tuple(answer.status_code for answer in answers) == STATUSES[name]


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("owner", ["of acme"]),
        ("admin", ["of acme"]),
        ("member", ["of acme"]),
        ("rival", ["of globex"]),
        ("outsider", []),
    ],
)
def test_lists_show_the_keys_of_the_callers_organisations_alone(
    name, names, callers, issue, globex
):
    issue(name="of acme")
    issue(name="of globex", owner=globex)
    issue(name="of the project", owner=None)

    answer = callers[name].get("/api/v1/keys/")

    assert [key["name"] for key in answer.data["data"]] == names


def test_a_rival_makes_no_key_for_another_organisation(callers, acme):
    """The organisation of others does not exist for them; nothing is stored."""
    answer = callers["rival"].post("/api/v1/keys/", {"name": "new", "owner": acme.pk})

    assert answer.data["error"]["fields"] == {"owner": ["There is no such owner."]}
    assert not APIKey.objects.exists()


def test_the_superuser_sees_the_keys_of_the_project_alone(person, issue):
    issue(name="of acme")
    issue(name="of the project", owner=None)

    answer = person("owner", is_superuser=True).get("/api/v1/keys/")

    assert [key["name"] for key in answer.data["data"]] == ["of the project"]


@pytest.mark.parametrize(
    ("role", "actions"),
    [
        ("owner", ["see", "create", "change", "rotate", "revoke", "reveal", "delete"]),
        ("admin", ["see", "revoke"]),
        ("member", ["see"]),
    ],
)
def test_the_actions_of_a_role(role, actions, acme):
    membership = MembershipFactory.create(organisation=acme, role=role)

    allowed = [
        action
        for action in ("see", "create", "change", "rotate", "revoke", "reveal", "delete")
        if policy.owners(membership.user, action).exists()
    ]

    assert allowed == actions


def test_an_inactive_owner_may_not_even_see(acme):
    membership = MembershipFactory.create(
        organisation=acme, role="owner", user=UserFactory.create(is_active=False)
    )

    assert not policy.owners(membership.user, "see").exists()


def test_who_is_no_user_sees_no_organisation_without_members(acme, program, rf, issue):
    """Neither the anonymous nor a key has a pk, which must not be taken for "no member"."""
    secret = issue().secret
    grant = verify(rf.get("/", headers={"Authorization": f"Bearer {secret}"}))

    assert not policy.owners(AnonymousUser(), "see").exists()
    assert not policy.owners(APIKeyUser(grant), "see").exists()


def test_owners_evaluates_nothing(acme, django_assert_num_queries):
    user = MembershipFactory.create(organisation=acme).user

    with django_assert_num_queries(0):
        policy.owners(user, "see")


def test_somebody_may_have_another_role_in_each_organisation(acme, globex):
    user = MembershipFactory.create(organisation=acme, role="owner").user
    MembershipFactory.create(organisation=globex, role="member", user=user)

    assert list(policy.owners(user, "create")) == [acme]
    assert list(policy.owners(user, "see")) == [acme, globex]


@pytest.mark.parametrize("text", ["acme", "Acme"])
def test_an_organisation_is_found_by_slug_and_by_name(text, acme, globex):
    assert policy.find_owner(text) == acme


def test_an_organisation_is_found_by_primary_key(acme, globex):
    assert policy.find_owner(str(globex.pk)) == globex


@pytest.mark.parametrize("text", ["", "nobody", "0", "Twins"])
def test_a_text_that_names_none_or_several_finds_none(text, acme):
    OrganisationFactory.create_batch(2, name="Twins")

    with pytest.raises(ObjectDoesNotExist):
        policy.find_owner(text)


def test_a_key_knows_its_organisations_plan(rf, issue, acme):
    request = rf.get("/", headers={"X-API-Key": issue().secret})

    assert verify(request).plan == "enterprise"


def test_keys_of_an_inactive_organisation_are_refused(program, acme):
    client = program("customers:read")
    Organisation.objects.update(is_active=False)

    answer = client.get("/api/v1/customers/")

    assert (answer.status_code, answer.data["error"]["reason"]) == (401, "inactive_owner")


@pytest.mark.parametrize(
    ("username", "status"), [("acme", 200), ("", 200), ("Acme", 401), ("owner", 401)]
)
def test_the_user_name_beside_a_secret_is_the_slug(username, status, client, issue):
    secret = issue("customers:read").secret

    answer = client.get("/api/v1/customers/", headers=basic(username, secret))

    assert answer.status_code == status


def test_lists_call_an_organisation_by_its_name(person, acme, issue):
    issue()

    answer = person("member", acme).get("/api/v1/keys/")

    assert answer.data["data"][0]["owner"] == {"id": acme.pk, "name": "Acme"}


def test_the_owners_of_the_organisation_are_told_of_its_keys(acme, globex, issue):
    """Those who are active and have an address; nobody else of it, and nobody of another."""
    for name, organisation, role, fields in (
        ("first", acme, "owner", {}),
        ("second", acme, "owner", {}),
        ("gone", acme, "owner", {"is_active": False}),
        ("silent", acme, "owner", {"email": ""}),
        ("admin", acme, "admin", {}),
        ("member", acme, "member", {}),
        ("rival", globex, "owner", {}),
    ):
        user = UserFactory.create(**{"email": f"{name}@example.com", **fields})
        MembershipFactory.create(organisation=organisation, user=user, role=role)

    told = policy.notice_recipients(issue().key)

    assert told == ["first@example.com", "second@example.com"]


def test_nobody_is_told_of_the_keys_of_the_project_or_of_an_inactive_organisation(acme, issue):
    user = UserFactory.create(email="ann@example.com")
    MembershipFactory.create(organisation=acme, user=user, role="owner")
    of_project, of_acme = issue(owner=None).key, issue().key
    acme.is_active = False

    assert list(policy.notice_recipients(of_project)) == []
    assert list(policy.notice_recipients(of_acme)) == []
