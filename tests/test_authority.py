"""What a person may do with keys, as the policy has it, and what a key may."""

import uuid
from copy import copy
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.contrib.sessions.models import Session
from django.core.exceptions import ValidationError
from django.utils import timezone

from django_apikeys import services, verification
from django_apikeys.authority import Authority, KeyAuthority, authority_of, with_key
from django_apikeys.exceptions import BeyondCeiling, KeyRefused, NotPermitted
from django_apikeys.models import APIKey
from django_apikeys.policy import UserPolicy
from tests.conftest import bearer
from tests.factories import APIKeyFactory, APIKeySecretFactory, UserFactory

BASE = "django_apikeys.policy.BasePolicy"
NOT_PERMITTED = "You may not do this with API keys of this owner."
ACTIONS = ["see", "create", "change", "rotate", "revoke", "reveal", "delete"]
EARLIER = datetime(2100, 1, 1, tzinfo=UTC)
LATER = datetime(2100, 1, 2, tzinfo=UTC)


class ForPolicy(UserPolicy):
    """Everyone may see all keys, and create for the users c… alone."""

    def owners(self, person, action):
        users = get_user_model()._default_manager
        return users.all() if action == "see" else users.filter(username__startswith="c")


class ReadingPolicy(UserPolicy):
    """Everyone may grant ``customers:read`` and nothing else."""

    def grantable_scopes(self, person, owner):
        return ["customers:read"]


@pytest.fixture
def root(db):
    return UserFactory(username="root", superuser=True)


@pytest.fixture
def wide(settings):
    settings.APIKEYS_POLICY = "tests.test_authority.ForPolicy"


def test_owners_are_those_of_the_policy(user):
    UserFactory()

    assert list(Authority(user).owners("create")) == [user]


def test_keys_of_the_project_are_for_whom_the_policy_says(user, root):
    assert Authority(user).may_for_project("see") is False
    assert Authority(root).may_for_project("see") is True


class TestVisibleKeys:
    @pytest.fixture
    def keys(self, user, root):
        return {
            "ann": APIKeyFactory(owner=user),
            "root": APIKeyFactory(owner=root),
            "project": APIKeyFactory(owner=None),
            "deleted": APIKeyFactory(owner=user, deleted=True),
        }

    def test_are_their_own(self, keys, user):
        assert set(Authority(user).visible_keys()) == {keys["ann"]}

    def test_are_those_of_the_project_too_for_a_superuser(self, keys, root):
        assert set(Authority(root).visible_keys()) == {keys["root"], keys["project"]}

    def test_are_the_same_where_there_are_too_many_owners_to_name(self, keys, root, monkeypatch):
        monkeypatch.setattr("django_apikeys.authority.MOST_NAMED", 0)

        assert set(Authority(root).visible_keys()) == {keys["root"], keys["project"]}

    @pytest.mark.usefixtures("keys")
    def test_are_none_for_nobody(self):
        assert list(Authority(AnonymousUser()).visible_keys()) == []


class TestRequire:
    def test_lets_an_owner_be(self, user):
        Authority(user).require("revoke", user.pk)

    def test_lets_the_project_be_for_a_superuser(self, root):
        Authority(root).require("revoke", None)

    @pytest.mark.parametrize("of_project", [True, False], ids=["project", "another"])
    def test_refuses(self, user, root, of_project):
        with pytest.raises(NotPermitted) as refused:
            Authority(user).require("revoke", None if of_project else root.pk)

        assert str(refused.value) == NOT_PERMITTED


class TestRequireAny:
    def test_lets_whoever_has_an_owner_be(self, user):
        Authority(user).require_any("create")

    def test_lets_whoever_has_the_project_be(self, root, settings):
        settings.APIKEYS_POLICY = BASE

        Authority(root).require_any("create")

    @pytest.mark.django_db
    def test_refuses_nobody_at_all(self):
        with pytest.raises(NotPermitted, match=NOT_PERMITTED):
            Authority(AnonymousUser()).require_any("create")


@pytest.fixture
def reading(settings):
    settings.APIKEYS_POLICY = "tests.test_authority.ReadingPolicy"


def named(check, *args):
    """Return what *check* names as too much; empty where it lets it be."""
    try:
        check(*args)
    except BeyondCeiling as refused:
        return {name: list(texts) for name, texts in refused.beyond.items()}
    return {}


def changed(key, **fields):
    """Return *key* as it would be; nothing is stored."""
    after = copy(key)
    for name, value in fields.items():
        setattr(after, name, value)
    return after


@pytest.mark.usefixtures("reading")
class TestScopes:
    def test_grantable_are_those_of_the_policy(self, user):
        assert Authority(user).grantable(user) == ["customers:read"]

    @pytest.mark.parametrize("scopes", [[], ["customers:read"]], ids=["none", "theirs"])
    def test_theirs_may_be_given(self, user, scopes):
        key = APIKey(owner=user, scopes=scopes, environment="live")

        assert named(Authority(user).check, "create", None, key) == {}

    @pytest.mark.parametrize(
        ("scopes", "beyond"),
        [
            (["customers:read", "jobs:write"], ["jobs:write"]),
            (["jobs:write", "jobs:read"], ["jobs:read", "jobs:write"]),
            (["customers:*"], ["customers:*"]),
            (["*"], ["*"]),
            (["apikeys:read"], ["apikeys:read"]),
            (["self:rotate"], ["self:rotate"]),
        ],
        ids=" ".join,
    )
    def test_others_may_not_and_are_named(self, user, scopes, beyond):
        key = APIKey(owner=user, scopes=scopes, environment="live")

        with pytest.raises(BeyondCeiling) as refused:
            Authority(user).check("create", None, key)

        assert refused.value.beyond == {"scopes": beyond}
        assert str(refused.value) == (
            f"This is more than you may give to an API key: scopes ({', '.join(beyond)})."
        )

    def test_what_theirs_bring_along_may_be_given(self, user, settings):
        settings.APIKEYS_IMPLIED_SCOPES = {"customers:read": ["jobs:read"]}
        key = APIKey(owner=user, scopes=["jobs:read"], environment="live")

        assert named(Authority(user).check, "create", None, key) == {}

    def test_what_is_malformed_grants_nothing(self, user):
        key = APIKey(owner=user, scopes=["jobs", 1, None], environment="live")

        assert named(Authority(user).check, "create", None, key) == {}


class GrantingAllButPolicy(UserPolicy):
    """Everyone may grant whatever there is, but no scope that manages keys."""

    def grantable_scopes(self, person, owner):
        return ["customers:read", "customers:write", "jobs:read", "jobs:write"]


def test_wildcard_may_be_given_by_whoever_may_grant_all_that_it_covers(user, settings):
    settings.APIKEYS_POLICY = "tests.test_authority.GrantingAllButPolicy"
    key = APIKey(owner=user, scopes=["*", "jobs:*"], environment="live")

    assert named(Authority(user).check, "create", None, key) == {}


@pytest.mark.parametrize("target", ["customers:write", "apikeys:write"])
def test_wildcard_may_not_be_given_where_it_brings_along_more(target, user, settings):
    """A scope that is not registered may still imply others, and the wildcard covers it."""
    settings.APIKEYS_POLICY = "tests.test_authority.JobsPolicy"
    settings.APIKEYS_IMPLIED_SCOPES = {"jobs:admin": [target]}
    key = APIKey(owner=user, scopes=["jobs:*"], environment="live")

    assert key.granted_scopes == {"jobs:*"}
    assert named(Authority(user).check, "create", None, key) == {"scopes": ["jobs:*"]}


class JobsPolicy(UserPolicy):
    """Everyone may grant all registered scopes of jobs, and nothing else."""

    def grantable_scopes(self, person, owner):
        return ["jobs:read", "jobs:write"]


class TestPerson:
    """Whoever may not grant all scopes of a key gives nobody more of it."""

    BOUND = {
        "scopes": ["customers:read", "jobs:write"],
        "allowed_ips": ["192.0.2.0/24"],
        "expires_at": EARLIER,
        "rate_limit": "60/m",
    }
    BEYOND = {"scopes": ["jobs:write"]}

    @pytest.fixture
    def key(self, user):
        return APIKeyFactory(owner=user, **self.BOUND)

    CHANGES = [
        pytest.param({"name": "new"}, {}, id="rename"),
        pytest.param({"description": "new", "metadata": {"a": 1}}, {}, id="describe"),
        pytest.param({"scopes": ["customers:read"]}, {}, id="take the scope beyond"),
        pytest.param({"scopes": ["jobs:write"]}, {}, id="take the other scope"),
        pytest.param({"scopes": []}, {}, id="take all scopes"),
        pytest.param(
            {"scopes": ["customers:read", "jobs:write", "jobs:read"]},
            {"scopes": ["jobs:read", "jobs:write"]},
            id="add a scope",
        ),
        pytest.param({"scopes": ["jobs:read"]}, {"scopes": ["jobs:read"]}, id="another scope"),
        pytest.param({"scopes": ["*"]}, {"scopes": ["*"]}, id="all scopes"),
        pytest.param({"allowed_ips": ["192.0.2.7"]}, {}, id="narrow networks"),
        pytest.param({"allowed_ips": ["192.0.2.0/23"]}, BEYOND, id="widen networks"),
        pytest.param({"allowed_ips": []}, BEYOND, id="open to all networks"),
        pytest.param({"expires_at": datetime(2099, 1, 1, tzinfo=UTC)}, {}, id="shorten"),
        pytest.param({"expires_at": LATER}, BEYOND, id="lengthen"),
        pytest.param({"expires_at": None}, BEYOND, id="make endless"),
        pytest.param({"rate_limit": "1/s"}, {}, id="lower the rate"),
        pytest.param({"rate_limit": "61/m"}, BEYOND, id="raise the rate"),
        pytest.param({"rate_limit": ""}, BEYOND, id="take the rate away"),
        pytest.param({"enabled": False}, {}, id="disable"),
        pytest.param(
            {"expires_at": LATER, "scopes": ["customers:read"]}, {}, id="lengthen what is left"
        ),
    ]

    @pytest.mark.usefixtures("reading")
    @pytest.mark.parametrize(("fields", "beyond"), CHANGES)
    def test_who_may_not_grant_all_changes(self, key, user, fields, beyond):
        check = Authority(user).check

        assert named(check, "change", key, changed(key, **fields)) == beyond

    @pytest.mark.parametrize(("fields", "beyond"), CHANGES)
    def test_who_may_grant_all_makes_any_change(self, key, user, fields, beyond):
        check = Authority(user).check

        assert named(check, "change", key, changed(key, **fields)) == {}

    @pytest.mark.parametrize(
        ("fields", "beyond"),
        [
            pytest.param({"enabled": True}, BEYOND, id="enable"),
            pytest.param(
                {"enabled": True, "scopes": ["customers:read"]}, {}, id="enable what is left"
            ),
            pytest.param({"name": "new"}, {}, id="rename"),
        ],
    )
    def test_disabled_key_is_enabled_by_who_may_grant_all(
        self, key, user, settings, fields, beyond
    ):
        key.enabled = False
        after = changed(key, **fields)

        by_all = named(Authority(user).check, "change", key, after)
        settings.APIKEYS_POLICY = "tests.test_authority.ReadingPolicy"
        by_others = named(Authority(user).check, "change", key, after)

        assert (by_all, by_others) == ({}, beyond)

    @pytest.mark.parametrize(
        ("action", "beyond"),
        [
            ("rotate", BEYOND),
            ("reveal", BEYOND),
            ("revoke", {}),
            ("delete", {}),
        ],
    )
    def test_action(self, key, user, settings, action, beyond):
        by_all = named(Authority(user).check, action, key, key)
        settings.APIKEYS_POLICY = "tests.test_authority.ReadingPolicy"
        by_others = named(Authority(user).check, action, key, key)

        assert (by_all, by_others) == ({}, beyond)

    def test_has_no_ceiling_but_scopes(self, user):
        key = APIKey(owner=user, scopes=["*"], environment="test")

        assert named(Authority(user).check, "create", None, key) == {}

    @pytest.mark.parametrize("own", [True, False], ids=["a key", "none"])
    def test_needs_no_confirmation(self, key, user, own):
        assert Authority(user).key_id is None
        assert Authority(user).confirm(key if own else None) is None


# --- What a key may -----------------------------------------------------------------------

REACH = {
    "scopes": ["customers:read", "jobs:*", "self:rotate", "apikeys:read", "apikeys:write"],
    "allowed_ips": ["127.0.0.0/8", "192.0.2.0/24"],
    "expires_at": EARLIER,
    "rate_limit": "60/m",
}
WITHIN = {
    "scopes": ["jobs:read"],
    "allowed_ips": ["192.0.2.7"],
    "expires_at": datetime(2099, 1, 1, tzinfo=UTC),
    "rate_limit": "1/s",
}


@pytest.fixture
def manager(issue):
    """A key that manages keys."""
    return issue(name="manager", **REACH)


@pytest.fixture
def granted(rf):
    """Return the Grant of a secret."""

    def granted(issued):
        return verification.verify(rf.get("/", headers=bearer(issued.secret)))

    return granted


def into_its_grace(issued):
    issued.key.secrets.update(slot=1, retires_at=timezone.now() + timedelta(hours=1))
    APIKeySecretFactory(key=issued.key)


@pytest.fixture
def authority(manager, granted):
    return KeyAuthority(granted(manager))


@pytest.fixture
def in_grace(manager, granted):
    into_its_grace(manager)
    return KeyAuthority(granted(manager))


@pytest.fixture
def of_project(issue, granted):
    return KeyAuthority(granted(issue(owner=None, **REACH)))


class TestAuthorityOf:
    def test_request_with_a_key_is_its(self, manager, granted, rf, user):
        request = rf.get("/")
        request.auth, request.user = granted(manager), user

        authority = authority_of(request)

        assert isinstance(authority, KeyAuthority)
        assert authority.key_id == manager.key.pk

    @pytest.mark.parametrize("auth", [None, "a token of others"])
    def test_request_of_a_person_is_theirs(self, rf, user, auth):
        request = rf.get("/")
        request.auth, request.user = auth, user

        authority = authority_of(request)

        assert type(authority) is Authority
        assert list(authority.owners("see")) == [user]

    def test_request_without_an_authentication_is_the_users(self, rf, user):
        request = rf.get("/")
        request.user = user

        assert type(authority_of(request)) is Authority


class TestKeyMay:
    @pytest.mark.parametrize(
        ("action", "expected"),
        [(action, action != "reveal") for action in ACTIONS],
        ids=ACTIONS,
    )
    def test_for_its_owner(self, authority, user, root, action, expected):
        assert list(authority.owners(action)) == ([user] if expected else [])
        assert authority.may_for_project(action) is False

    @pytest.mark.parametrize(
        ("action", "expected"), [(action, action == "see") for action in ACTIONS], ids=ACTIONS
    )
    def test_in_its_grace(self, in_grace, user, action, expected):
        assert list(in_grace.owners(action)) == ([user] if expected else [])

    @pytest.mark.parametrize(
        ("action", "expected"),
        [(action, action != "reveal") for action in ACTIONS],
        ids=ACTIONS,
    )
    def test_of_the_project(self, of_project, user, action, expected):
        assert of_project.may_for_project(action) is expected
        assert list(of_project.owners(action)) == []

    @pytest.mark.parametrize(
        ("action", "expected"), [(action, action == "see") for action in ACTIONS], ids=ACTIONS
    )
    def test_of_the_project_in_its_grace(self, issue, granted, action, expected):
        issued = issue(owner=None, **REACH)
        into_its_grace(issued)

        assert KeyAuthority(granted(issued)).may_for_project(action) is expected

    def test_policy_for_people_is_not_asked(self, authority, user, settings):
        settings.APIKEYS_POLICY = BASE

        assert list(authority.owners("create")) == [user]
        assert "jobs:write" in authority.grantable(user)

    @pytest.mark.parametrize("action", ["create", "change", "revoke", "delete"])
    def test_require(self, authority, in_grace, user, root, action):
        authority.require(action, user.pk)
        authority.require_any(action)
        for owner_id in (root.pk, None):
            with pytest.raises(NotPermitted, match=NOT_PERMITTED):
                authority.require(action, owner_id)
        with pytest.raises(NotPermitted, match="This secret was rotated: send the current one"):
            in_grace.require(action, user.pk)
        with pytest.raises(NotPermitted, match="This secret was rotated: send the current one"):
            in_grace.require_any(action)

    def test_owner_of_a_new_key_is_its_own(self, authority, user, root):
        assert authority.only_owner() == authority.owner_named(user.pk) == user
        with pytest.raises(ValidationError, match=r"There is no such owner\."):
            authority.owner_named(root.pk)
        with pytest.raises(ValidationError, match=r"A key needs an owner\."):
            authority.project()

    def test_owner_of_a_new_key_of_the_project_is_none(self, of_project, user):
        assert of_project.only_owner() is None
        assert of_project.project() is None
        with pytest.raises(ValidationError, match=r"There is no such owner\."):
            of_project.owner_named(user.pk)

    def test_environment_of_a_new_key_is_its_own(self, issue, granted):
        authority = KeyAuthority(granted(issue(environment="test")))

        assert authority.default_environment == "test"


class TestKeySees:
    def test_keys_of_its_owner_and_environment(self, authority, manager, user, root):
        sibling = APIKeyFactory(owner=user)
        revoked = APIKeyFactory(owner=user, revoked=True)
        APIKeyFactory(owner=user, environment="test")
        APIKeyFactory(owner=user, deleted=True)
        APIKeyFactory(owner=root)
        APIKeyFactory(owner=None)

        assert set(authority.visible_keys()) == {manager.key, sibling, revoked}

    def test_keys_of_the_project(self, of_project, user):
        key = APIKeyFactory(owner=None)
        APIKeyFactory(owner=None, environment="test")
        APIKeyFactory(owner=user)

        assert set(of_project.visible_keys()) == {key, APIKey.objects.get(pk=of_project.key_id)}

    def test_the_same_in_its_grace(self, in_grace, manager, user):
        sibling = APIKeyFactory(owner=user)

        assert set(in_grace.visible_keys()) == {manager.key, sibling}

    def test_events_of_its_owner_and_environment(self, authority, issue, root):
        issue(name="sibling")
        deleted = issue(name="deleted").key
        services.delete_key(key=deleted)
        issue(name="elsewhere", environment="test")
        issue(name="of another", owner=root)
        issue(name="of the project", owner=None)

        found = authority.visible_events().order_by("id").values_list("type", "key_name")

        assert list(found) == [
            ("created", "manager"),
            ("created", "sibling"),
            ("created", "deleted"),
            ("deleted", "deleted"),
        ]

    def test_events_of_the_project(self, of_project, issue):
        issue(name="of the project", owner=None)
        issue(name="elsewhere", owner=None, environment="test")
        issue(name="of ann")

        found = of_project.visible_events().order_by("id").values_list("key_name", flat=True)

        assert list(found) == ["a key", "of the project"]


class TestKeyGrants:
    def test_what_it_has_but_nothing_that_manages_keys(self, authority, user):
        assert authority.grantable(user) == [
            "customers:read",
            "jobs:read",
            "jobs:write",
            "self:rotate",
        ]

    def test_what_its_scopes_bring_along(self, issue, granted, user, settings):
        settings.APIKEYS_IMPLIED_SCOPES = {"jobs:write": ["jobs:read"]}

        authority = KeyAuthority(granted(issue(scopes=["jobs:write", "apikeys:read"])))

        assert authority.grantable(user) == ["jobs:read", "jobs:write"]

    @pytest.mark.parametrize(
        ("scopes", "expected"),
        [
            pytest.param(
                ["*"],
                ["customers:read", "customers:write", "jobs:read", "jobs:write"],
                id="star",
            ),
            pytest.param(["apikeys:read"], [], id="reading keys"),
            pytest.param([], [], id="none"),
        ],
    )
    def test_of(self, issue, granted, user, scopes, expected):
        assert KeyAuthority(granted(issue(scopes=scopes))).grantable(user) == expected


class TestKeyCeiling:
    @pytest.fixture
    def key(self, user):
        return APIKeyFactory(owner=user, **WITHIN)

    ALL = {
        "scopes": ["customers:write"],
        "allowed_ips": ["198.51.100.0/24"],
        "expires_at": ["2100-01-02T00:00:00+00:00"],
        "rate_limit": ["61/m"],
    }
    FIELDS = [
        pytest.param({}, {}, id="within"),
        pytest.param({"scopes": ["customers:read", "jobs:*"]}, {}, id="its own scopes"),
        pytest.param({"scopes": ["self:rotate"]}, {}, id="to rotate itself"),
        pytest.param({"scopes": ["jobs", "*:write"]}, {}, id="malformed scopes grant nothing"),
        pytest.param(
            {"scopes": ["customers:write", "jobs:read"]},
            {"scopes": ["customers:write"]},
            id="another scope",
        ),
        pytest.param(
            {"scopes": ["customers:*"]}, {"scopes": ["customers:*"]}, id="a wider wildcard"
        ),
        pytest.param({"scopes": ["*"]}, {"scopes": ["*"]}, id="star"),
        pytest.param(
            {"scopes": ["self:revoke"]}, {"scopes": ["self:revoke"]}, id="to revoke itself"
        ),
        pytest.param({"allowed_ips": ["127.0.0.0/8", "192.0.2.0/24"]}, {}, id="its own networks"),
        pytest.param({"allowed_ips": []}, {"allowed_ips": ["everywhere"]}, id="every network"),
        pytest.param(
            {"allowed_ips": ["192.0.2.7", "198.51.100.1", "::1"]},
            {"allowed_ips": ["198.51.100.1", "::1"]},
            id="other networks",
        ),
        pytest.param({"allowed_ips": ["rubbish"]}, {}, id="networks of nobody"),
        pytest.param({"allowed_ips": None}, {}, id="a list that cannot be read"),
        pytest.param({"allowed_ips": {"192.0.2.7": 1}}, {}, id="networks that are no list"),
        pytest.param({"expires_at": EARLIER}, {}, id="its own expiry"),
        pytest.param(
            {"expires_at": LATER},
            {"expires_at": ["2100-01-02T00:00:00+00:00"]},
            id="a later expiry",
        ),
        pytest.param({"expires_at": None}, {"expires_at": ["never"]}, id="no expiry"),
        pytest.param({"rate_limit": "60/m"}, {}, id="its own rate"),
        pytest.param({"rate_limit": "61/m"}, {"rate_limit": ["61/m"]}, id="a higher rate"),
        pytest.param({"rate_limit": ""}, {"rate_limit": ["unlimited"]}, id="no rate"),
        pytest.param({"environment": "test"}, {"environment": ["test"]}, id="elsewhere"),
        pytest.param(
            {
                "scopes": ["customers:write"],
                "allowed_ips": ["198.51.100.0/24"],
                "expires_at": LATER,
                "rate_limit": "61/m",
                "environment": "test",
            },
            {"environment": ["test"], **ALL},
            id="all of it",
        ),
    ]

    @pytest.mark.parametrize(("fields", "beyond"), FIELDS)
    def test_create(self, authority, user, fields, beyond):
        key = APIKey(**{"owner": user, "environment": "live", **WITHIN, **fields})

        assert named(authority.check, "create", None, key) == beyond

    @pytest.mark.parametrize(
        ("fields", "beyond"),
        [case for case in FIELDS if case.id not in ("elsewhere", "all of it")],
    )
    def test_change(self, authority, key, fields, beyond):
        assert named(authority.check, "change", key, changed(key, **fields)) == beyond

    @pytest.mark.parametrize(("fields", "beyond"), FIELDS)
    @pytest.mark.parametrize("action", ["rotate", "revoke", "delete"])
    def test_key_as_it_is(self, authority, key, action, fields, beyond):
        """Even to revoke it: a small key must not stop a greater one."""
        as_it_is = changed(key, **fields)

        assert named(authority.check, action, as_it_is, as_it_is) == beyond

    @pytest.mark.parametrize(
        ("fields", "beyond"),
        [case for case in FIELDS if case.id not in ("elsewhere", "all of it")],
    )
    def test_key_that_would_be_within_must_be_so_before(self, authority, key, fields, beyond):
        before = changed(key, **fields)

        assert named(authority.check, "change", before, key) == beyond

    @pytest.mark.parametrize("scope", ["apikeys:read", "apikeys:write"])
    def test_no_key_grants_to_manage_keys(self, authority, user, key, scope):
        new = APIKey(owner=user, environment="live", **{**WITHIN, "scopes": ["jobs:read", scope]})

        created = named(authority.check, "create", None, new)
        change = named(authority.check, "change", key, changed(key, scopes=["jobs:read", scope]))

        assert created == change == {"scopes": [scope]}

    def test_scopes_that_manage_keys_are_named_with_the_others(self, authority, key):
        after = changed(key, scopes=["customers:write", "apikeys:write", "jobs:read"])

        assert named(authority.check, "change", key, after) == {
            "scopes": ["apikeys:write", "customers:write"]
        }

    def test_no_key_grants_what_brings_along_to_manage_keys(self, issue, granted, user, settings):
        settings.APIKEYS_IMPLIED_SCOPES = {"jobs:write": ["apikeys:write"]}
        authority = KeyAuthority(granted(issue(scopes=["jobs:write"])))
        key = APIKey(owner=user, environment="live", scopes=["jobs:write"])

        assert named(authority.check, "create", None, key) == {"scopes": ["jobs:write"]}
        assert authority.grantable(user) == []

    def test_key_that_manages_keys_already_may_be_changed_within(self, authority, key):
        before = changed(key, scopes=["apikeys:read", "jobs:read"])

        assert named(authority.check, "change", before, changed(before, name="new")) == {}
        assert named(authority.check, "change", before, changed(before, scopes=[])) == {}
        assert named(authority.check, "change", before, changed(before, scopes=["apikeys:write"]))

    @pytest.mark.parametrize(
        ("before", "after", "beyond"),
        [
            (False, True, {"enabled": ["an API key enables none"]}),
            (False, False, {}),
            (True, False, {}),
            (True, True, {}),
        ],
        ids=["enable", "still disabled", "disable", "still enabled"],
    )
    def test_no_key_enables_one(self, authority, key, before, after, beyond):
        was, would_be = changed(key, enabled=before), changed(key, enabled=after)

        assert named(authority.check, "change", was, would_be) == beyond

    @pytest.mark.parametrize("enabled", [True, False])
    def test_new_key_is_enabled_or_not(self, authority, user, enabled):
        key = APIKey(owner=user, environment="live", enabled=enabled, **WITHIN)

        assert named(authority.check, "create", None, key) == {}

    def test_its_own_key_lies_within(self, authority, manager):
        key = APIKey.objects.get(pk=manager.key.pk)

        assert named(authority.check, "revoke", key, key) == {}
        assert named(authority.check, "change", key, changed(key, name="new")) == {}
        assert named(authority.check, "change", key, changed(key, expires_at=None)) == {
            "expires_at": ["never"]
        }

    @pytest.mark.parametrize("scopes", [[1], [None], [["jobs:read"]], None, 5, "jobs:read"])
    def test_key_whose_scopes_are_malformed_has_none(self, authority, key, scopes):
        """A row that something else wrote: it grants nothing, and can be revoked."""
        malformed = changed(key, scopes=scopes)

        assert named(authority.check, "revoke", malformed, malformed) == {}
        assert named(authority.check, "change", malformed, changed(malformed, name="new")) == {}

    def test_key_without_bounds_has_no_bounds_to_give(self, issue, granted, user):
        authority = KeyAuthority(granted(issue(scopes=["*", "apikeys:write"])))
        key = APIKey(owner=user, environment="live", scopes=["*"])

        assert named(authority.check, "create", None, key) == {}

    def test_rate_that_cannot_be_read_is_none(self, manager, granted, user):
        APIKey.objects.filter(pk=manager.key.pk).update(rate_limit="rubbish")
        key = APIKey(owner=user, environment="live", **{**WITHIN, "rate_limit": ""})

        assert named(KeyAuthority(granted(manager)).check, "create", None, key) == {}


class TestConfirm:
    @pytest.fixture
    def own(self, manager):
        return APIKey.objects.get(pk=manager.key.pk)

    def test_key_that_is_alive_goes_on(self, authority, own):
        assert authority.confirm(own) is None

    def test_key_of_which_the_row_is_gone(self, authority, manager):
        with pytest.raises(KeyRefused) as refused:
            authority.confirm(None)

        assert refused.value.code == "revoked_key"
        assert refused.value.public_id == manager.key.current_secret.public_id

    @pytest.mark.parametrize(
        ("fields", "code"),
        [
            pytest.param({"revoked_at": EARLIER}, "revoked_key", id="revoked"),
            pytest.param(
                {"revoked_at": EARLIER, "deleted_at": EARLIER}, "revoked_key", id="deleted"
            ),
            pytest.param({"enabled": False}, "disabled_key", id="disabled"),
            pytest.param(
                {"expires_at": datetime(2020, 1, 1, tzinfo=UTC)}, "expired_key", id="expired"
            ),
            pytest.param(
                {"enabled": False, "revoked_at": EARLIER}, "revoked_key", id="disabled and revoked"
            ),
        ],
    )
    def test_key_that_is_dead_by_now(self, authority, own, fields, code):
        with pytest.raises(KeyRefused) as refused:
            authority.confirm(changed(own, **fields))

        assert refused.value.code == code

    def test_key_whose_secret_is_retired_by_now(self, authority, own):
        own.secrets.update(slot=None)
        APIKeySecretFactory(key=own)

        with pytest.raises(KeyRefused) as refused:
            authority.confirm(own)

        assert refused.value.code == "retired_secret"

    def test_key_whose_secret_is_in_its_grace_by_now(self, authority, own):
        own.secrets.update(slot=1)
        APIKeySecretFactory(key=own)

        with pytest.raises(NotPermitted, match=NOT_PERMITTED):
            authority.confirm(own)

    def test_key_that_has_lost_the_scope(self, authority, own):
        with pytest.raises(NotPermitted, match=NOT_PERMITTED):
            authority.confirm(changed(own, scopes=["apikeys:read", "*"]))

    @pytest.mark.parametrize(
        ("fields", "beyond"),
        [
            ({"scopes": ["apikeys:write"]}, {"scopes": ["jobs:read"]}),
            ({"allowed_ips": ["127.0.0.1"]}, {"allowed_ips": ["192.0.2.7"]}),
            (
                {"expires_at": datetime(2098, 1, 1, tzinfo=UTC)},
                {"expires_at": ["2099-01-01T00:00:00+00:00"]},
            ),
            ({"rate_limit": "59/m"}, {"rate_limit": ["1/s"]}),
        ],
        ids=["scopes", "networks", "expiry", "rate"],
    )
    def test_key_that_was_narrowed_has_the_narrower_ceiling(
        self, authority, own, user, fields, beyond
    ):
        new = APIKey(owner=user, environment="live", **WITHIN)
        before = named(authority.check, "create", None, new)

        authority.confirm(changed(own, **fields))

        assert before == {}
        assert named(authority.check, "create", None, new) == beyond

    def test_implied_scopes_stay_in_the_ceiling(self, issue, granted, user, settings):
        settings.APIKEYS_IMPLIED_SCOPES = {"jobs:write": ["jobs:read"]}
        manager = issue(scopes=["jobs:write", "apikeys:write"])
        authority = KeyAuthority(granted(manager))
        key = APIKey(owner=user, environment="live", scopes=["jobs:read"])

        authority.confirm(APIKey.objects.get(pk=manager.key.pk))

        assert named(authority.check, "create", None, key) == {}


@pytest.mark.usefixtures("wide")
class TestOwnerNamed:
    def test_is_one_for_whom_they_may_create(self, user):
        cleo = UserFactory(username="cleo")

        assert Authority(user).owner_named(cleo.pk) == cleo
        assert Authority(user).owner_named(str(cleo.pk)) == cleo

    def test_is_refused_where_they_see_it_alone(self, user):
        with pytest.raises(NotPermitted, match=NOT_PERMITTED):
            Authority(user).owner_named(user.pk)

    @pytest.mark.parametrize("identifier", [999_999, "ann", None, True, [1]])
    def test_is_no_such_owner(self, user, identifier):
        with pytest.raises(ValidationError, match=r"There is no such owner\."):
            Authority(user).owner_named(identifier)


class TestOnlyOwner:
    def test_is_the_one(self, user):
        assert Authority(user).only_owner() == user

    @pytest.mark.usefixtures("wide")
    def test_is_to_be_said_where_there_are_several(self, user):
        UserFactory(username="cleo")
        UserFactory(username="cid")

        with pytest.raises(ValidationError, match="Say for which owner"):
            Authority(user).only_owner()

    def test_is_the_project_where_there_is_none(self, root, settings):
        settings.APIKEYS_POLICY = BASE

        assert Authority(root).only_owner() is None

    @pytest.mark.usefixtures("wide")
    def test_is_needed_where_the_project_is_not_theirs(self, user):
        with pytest.raises(ValidationError, match=r"A key needs an owner\."):
            Authority(user).only_owner()


def test_project_is_for_whom_the_policy_says(user, root):
    Authority(root).project()
    with pytest.raises(ValidationError, match=r"A key needs an owner\."):
        Authority(user).project()


class TestWithKey:
    @pytest.fixture
    def first(self, db):
        return UserFactory(pk=1)

    @pytest.fixture
    def key(self, db):
        return APIKeyFactory(pk=uuid.UUID("6d2f0a3c-0000-4000-8000-000000000000"))

    @pytest.mark.parametrize("identifier", [1, "1"], ids=["int", "text"])
    def test_number_is_found(self, first, identifier):
        assert with_key(get_user_model().objects.all(), identifier) == first

    @pytest.mark.usefixtures("first")
    @pytest.mark.parametrize(
        "identifier",
        [
            pytest.param(2, id="another"),
            pytest.param(-1, id="negative"),
            pytest.param(10**30, id="huge"),
            pytest.param("9" * 30, id="huge text"),
            pytest.param("9" * 5000, id="more digits than Python reads"),
            pytest.param(True, id="bool"),
            pytest.param(1.0, id="float"),
            pytest.param("1.0", id="float as text"),
            pytest.param("1\x00", id="NUL"),
            pytest.param("", id="empty"),
            pytest.param("ann", id="word"),
            pytest.param("\ud800", id="half of a character"),
            pytest.param(b"1", id="bytes"),
            pytest.param(None, id="none"),
            pytest.param([1], id="list"),
            pytest.param({"pk": 1}, id="dict"),
        ],
    )
    def test_number_is_not_found_by(self, identifier):
        assert with_key(get_user_model().objects.all(), identifier) is None

    @pytest.mark.django_db
    def test_text_with_nul_is_not_asked_for(self, django_assert_num_queries):
        """PostgreSQL answers it with an error, where a key is text."""
        with django_assert_num_queries(0):
            assert with_key(Session.objects.all(), "a\x00b") is None

    @pytest.mark.parametrize(
        "identifier",
        [
            pytest.param("6d2f0a3c-0000-4000-8000-000000000000", id="text"),
            pytest.param("6D2F0A3C000040008000000000000000", id="text without hyphens"),
        ],
    )
    def test_uuid_is_found(self, key, identifier):
        assert with_key(APIKey.objects.all(), identifier) == key

    @pytest.mark.usefixtures("key")
    @pytest.mark.parametrize(
        "identifier",
        [
            pytest.param("6d2f0a3c-0000-4000-8000-000000000001", id="another"),
            pytest.param("6d2f0a3c", id="half"),
            pytest.param("\x00", id="NUL"),
            pytest.param(1, id="number"),
            pytest.param(10**50, id="huge"),
            pytest.param(uuid.UUID("6d2f0a3c-0000-4000-8000-000000000000"), id="no JSON"),
        ],
    )
    def test_uuid_is_not_found_by(self, identifier):
        assert with_key(APIKey.objects.all(), identifier) is None
