"""Who may do what, by default."""

from base64 import b64encode

import pytest
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import ObjectDoesNotExist

from django_apikeys.exceptions import KeyRefused, WrongSecret
from django_apikeys.policy import BasePolicy, UserPolicy
from django_apikeys.verification import verify
from tests.conftest import bearer
from tests.factories import APIKeyFactory, UserFactory

ACTIONS = ["see", "create", "change", "rotate", "revoke", "reveal", "delete"]


@pytest.mark.parametrize("action", ACTIONS)
def test_a_user_manages_their_own_keys(user, action):
    UserFactory()

    assert list(UserPolicy().owners(user, action)) == [user]


@pytest.mark.parametrize("action", ACTIONS)
def test_an_inactive_user_and_nobody_manage_none(db, action):
    gone = UserFactory(is_active=False)

    assert list(UserPolicy().owners(gone, action)) == []
    assert list(UserPolicy().owners(AnonymousUser(), action)) == []


@pytest.mark.parametrize("action", ACTIONS)
def test_the_base_lets_nobody_manage_anything(user, action):
    assert list(BasePolicy().owners(user, action)) == []


def test_keys_of_the_project_are_for_active_superusers(db):
    policy = BasePolicy()

    assert policy.may_manage_project_keys(UserFactory(superuser=True), "see") is True
    assert policy.may_manage_project_keys(UserFactory(staff=True), "see") is False
    gone = UserFactory(superuser=True, is_active=False)
    assert policy.may_manage_project_keys(gone, "see") is False
    assert policy.may_manage_project_keys(AnonymousUser(), "see") is False


def test_every_registered_scope_may_be_granted(user):
    scopes = set(BasePolicy().grantable_scopes(user, user))

    assert {"customers:read", "apikeys:read", "self:revoke"} <= scopes


def test_the_base_knows_no_plan_and_no_user_names(user):
    policy = BasePolicy()

    assert policy.is_active({}) is True
    assert policy.plan({}) is None
    assert policy.basic_usernames({}) == ()
    assert policy.owner_name(user) == "ann"


def test_a_user_is_found_by_name_and_by_id(user):
    assert UserPolicy().find_owner("ann") == user
    assert UserPolicy().find_owner(str(user.pk)) == user


@pytest.mark.parametrize("text", ["bob", "999999", "", "1.5", "-"])
def test_nobody_is_found_by(user, text):
    with pytest.raises(ObjectDoesNotExist):
        UserPolicy().find_owner(text)


def test_the_columns_of_a_request_are_those_that_the_model_has():
    assert UserPolicy().columns() == ["email", "is_active", "username"]


def test_user_name_and_email_stand_beside_a_secret():
    owner = {"email": "ann@example.com", "is_active": True, "username": "ann"}

    assert set(UserPolicy().basic_usernames(owner)) == {"ann", "ann@example.com"}


class PlanOfUser(UserPolicy):
    """A plan in a column of the user, as somebody writes it who thinks of nothing else."""

    owner_fields = ("last_name",)

    def plan(self, owner):
        return owner["last_name"]


@pytest.fixture
def of_user(settings, user):
    settings.APIKEYS_POLICY = f"{__name__}.PlanOfUser"
    user.last_name = "pro"
    user.save()


@pytest.mark.usefixtures("of_user")
def test_a_subclass_that_reads_a_column_of_its_own_reads_it_beside_the_others(issued, rf):
    grant = verify(rf.get("/", headers=bearer(issued.secret)))

    assert grant.plan == "pro"


@pytest.mark.usefixtures("of_user")
def test_a_subclass_that_reads_a_column_of_its_own_lets_nobody_in_who_is_inactive(
    issued, user, rf
):
    user.is_active = False
    user.save()

    with pytest.raises(KeyRefused) as caught:
        verify(rf.get("/", headers=bearer(issued.secret)))

    assert caught.value.code == "inactive_owner"


class ForgetfulPolicy(UserPolicy):
    """Looks at a column that it names nowhere."""

    def plan(self, owner):
        return owner["last_name"]


def test_a_column_that_is_named_nowhere_is_told_with_what_to_do(issued, rf, settings):
    settings.APIKEYS_POLICY = f"{__name__}.ForgetfulPolicy"

    with pytest.raises(KeyError, match="'last_name' is not read of the owner: name it in owner_f"):
        verify(rf.get("/", headers=bearer(issued.secret)))


@pytest.mark.usefixtures("of_user")
def test_a_column_of_a_subclass_is_no_user_name(issued, rf):
    def basic(name):
        text = b64encode(f"{name}:{issued.secret}".encode()).decode()
        return rf.get("/", headers={"Authorization": f"Basic {text}"})

    assert verify(basic("ann"))
    with pytest.raises(WrongSecret):
        verify(basic("pro"))


def test_an_empty_email_is_no_user_name():
    owner = {"email": "", "is_active": True, "username": "ann"}

    assert UserPolicy().basic_usernames(owner) == ["ann"]


def test_a_user_name_that_is_a_number_stands_beside_a_secret_as_text():
    owner = {"is_active": True, "username": 4711}

    assert UserPolicy().basic_usernames(owner) == ["4711"]


def test_the_owner_is_told_of_their_keys(user):
    assert list(UserPolicy().notice_recipients(APIKeyFactory(owner=user))) == ["ann@example.com"]


@pytest.mark.parametrize(
    "fields", [{"is_active": False}, {"email": ""}], ids=["gone", "no address"]
)
def test_nobody_is_told_of_the_keys_of_an_owner_who_is(db, fields):
    key = APIKeyFactory(owner=UserFactory(**fields))

    assert list(UserPolicy().notice_recipients(key)) == []


def test_nobody_is_told_of_the_keys_of_the_project(db):
    assert list(UserPolicy().notice_recipients(APIKeyFactory(owner=None))) == []


def test_the_base_tells_nobody(user):
    assert list(BasePolicy().notice_recipients(APIKeyFactory(owner=user))) == []
