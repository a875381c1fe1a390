"""What a person may do with keys, as the policy has it."""

import uuid

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.contrib.sessions.models import Session
from django.core.exceptions import ValidationError

from django_apikeys.authority import Authority, with_key
from django_apikeys.exceptions import BeyondCeiling, NotPermitted
from django_apikeys.models import APIKey
from django_apikeys.policy import UserPolicy
from tests.factories import APIKeyFactory, UserFactory

BASE = "django_apikeys.policy.BasePolicy"
NOT_PERMITTED = "You may not do this with API keys of this owner."


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


class TestScopes:
    @pytest.fixture
    def reading(self, settings):
        settings.APIKEYS_POLICY = "tests.test_authority.ReadingPolicy"

    @pytest.mark.usefixtures("reading")
    def test_grantable_are_those_of_the_policy(self, user):
        assert Authority(user).grantable(user) == ["customers:read"]

    @pytest.mark.usefixtures("reading")
    @pytest.mark.parametrize("scopes", [[], ["customers:read"]], ids=["none", "theirs"])
    def test_theirs_may_be_given(self, user, scopes):
        Authority(user).require_grantable(scopes, user)

    @pytest.mark.usefixtures("reading")
    @pytest.mark.parametrize(
        ("scopes", "named"),
        [
            (["customers:read", "jobs:write"], "jobs:write"),
            (["customers:*"], "customers:*"),
            (["*"], "*"),
        ],
    )
    def test_others_may_not_and_are_named(self, user, scopes, named):
        with pytest.raises(BeyondCeiling) as refused:
            Authority(user).require_grantable(scopes, user)

        assert str(refused.value) == f"You may not grant: {named}."


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
