import copy
import inspect
from dataclasses import replace
from uuid import UUID

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser, Permission
from django.test.utils import isolate_apps

from django_apikeys import users
from django_apikeys.keys.grants import Grant
from django_apikeys.policy import UserPolicy
from django_apikeys.users import APIKeyUser, LazyUser, request_user

GRANT = Grant(
    key_id=UUID("00000000-0000-0000-0000-000000000001"),
    public_id="7Fq2Lm9XcT0a",
    name="reports",
    environment="live",
    scopes=frozenset({"*"}),
    owner_id=None,
    plan=None,
    masked="rak_live_7Fq2…WtB2",
)


class GenerousBackend:
    """Grants everybody everything, the anonymous too."""

    def has_perm(self, user, perm, obj=None):
        return True

    def has_module_perms(self, user, module):
        return True

    def get_all_permissions(self, user, obj=None):
        return {"auth.add_user"}

    get_user_permissions = get_group_permissions = get_all_permissions


class NamingPolicy(UserPolicy):
    """Says itself who calls."""

    def request_user(self, grant):
        return f"who calls with {grant.name}"


class UserLoader:
    """Loads the owner as a request does."""

    def owner(self, grant):
        return get_user_model().objects.get(pk=grant.owner_id)

    def key(self, grant):
        """Never asked for here."""


@pytest.fixture
def lazy(user):
    return LazyUser(replace(GRANT, owner_id=user.pk, loader=UserLoader()))


def public(cls):
    return {name for name in dir(cls) if not name.startswith("_")}


class TestAPIKeyUser:
    @pytest.fixture
    def caller(self):
        return APIKeyUser(GRANT)

    def test_has_the_interface_of_the_anonymous(self):
        assert public(AnonymousUser) - public(APIKeyUser) == set()

    def test_its_methods_take_the_same_arguments(self):
        shared = public(AnonymousUser) & public(APIKeyUser)

        for name in shared:
            theirs, ours = getattr(AnonymousUser, name), getattr(APIKeyUser, name)
            if inspect.isfunction(theirs):
                assert len(inspect.signature(ours).parameters) == len(
                    inspect.signature(theirs).parameters
                )

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("id", None),
            ("pk", None),
            ("username", ""),
            ("is_active", True),
            ("is_staff", False),
            ("is_superuser", False),
            ("is_authenticated", True),
            ("is_anonymous", False),
        ],
    )
    def test_attribute(self, caller, name, expected):
        assert getattr(caller, name) is expected

    def test_has_an_empty_user_name(self, caller):
        assert caller.get_username() == ""
        assert str(caller) == "APIKeyUser"

    def test_knows_its_grant(self, caller):
        assert caller.grant is GRANT

    @pytest.mark.django_db
    def test_is_in_no_group_and_has_no_permission_rows(self, caller, django_assert_num_queries):
        with django_assert_num_queries(0):
            assert list(caller.groups.all()) == []
            assert list(caller.user_permissions.all()) == []

    def test_has_no_permission_whatever_the_backends_grant(self, settings, caller):
        settings.AUTHENTICATION_BACKENDS = ["tests.test_users.GenerousBackend"]

        assert AnonymousUser().has_perm("auth.add_user")
        assert AnonymousUser().has_module_perms("auth")
        assert AnonymousUser().get_all_permissions() == {"auth.add_user"}
        assert not caller.has_perm("auth.add_user")
        assert not caller.has_perms(["auth.add_user"])
        assert not caller.has_module_perms("auth")
        assert caller.get_all_permissions() == set()
        assert caller.get_user_permissions() == set()
        assert caller.get_group_permissions() == set()

    def test_is_equal_to_the_caller_with_the_same_key(self, caller):
        same = APIKeyUser(replace(GRANT, public_id="another"))
        other = APIKeyUser(replace(GRANT, key_id=UUID(int=2)))

        assert caller == same
        assert hash(caller) == hash(same)
        assert caller != other
        assert caller != AnonymousUser()

    def test_cannot_be_taken_for_a_number(self, caller):
        with pytest.raises(TypeError):
            int(caller)

    @pytest.mark.parametrize(
        ("name", "arguments"),
        [
            ("save", ()),
            ("delete", ()),
            ("set_password", ("password",)),
            ("check_password", ("password",)),
        ],
    )
    def test_has_no_row(self, caller, name, arguments):
        with pytest.raises(NotImplementedError):
            getattr(caller, name)(*arguments)

    @pytest.mark.parametrize(
        ("name", "arguments", "expected"),
        [
            ("ahas_perm", ("auth.add_user",), False),
            ("ahas_perms", (["auth.add_user"],), False),
            ("ahas_module_perms", ("auth",), False),
            ("aget_all_permissions", (), set()),
            ("aget_user_permissions", (), set()),
            ("aget_group_permissions", (), set()),
        ],
    )
    def test_has_no_permission_asynchronously(self, settings, caller, name, arguments, expected):
        settings.AUTHENTICATION_BACKENDS = ["tests.test_users.GenerousBackend"]

        assert async_to_sync(getattr(caller, name))(*arguments) == expected


class TestLazyUser:
    def test_tells_who_it_is_without_a_query(self, user, lazy, django_assert_num_queries):
        with django_assert_num_queries(0):
            assert lazy.pk == user.pk
            assert lazy.is_authenticated is True
            assert lazy.is_anonymous is False
            assert bool(lazy) is True

    @pytest.mark.parametrize(
        "touched",
        [
            pytest.param(lambda lazy: lazy.username == "ann", id="an attribute"),
            pytest.param(lambda lazy: str(lazy) == "ann", id="str"),
            pytest.param(lambda lazy: lazy.get_username() == "ann", id="a method"),
            pytest.param(lambda lazy: lazy.is_active, id="is_active"),
            pytest.param(lambda lazy: lazy.id == lazy.pk, id="id"),
            pytest.param(lambda lazy: isinstance(lazy, get_user_model()), id="isinstance"),
        ],
    )
    def test_loads_once_whatever_else_is_touched(self, lazy, django_assert_num_queries, touched):
        with django_assert_num_queries(1):
            assert touched(lazy)
            assert touched(lazy)
            assert lazy.email == "ann@example.com"

    def test_is_the_user_to_comparisons_and_queries(self, user, lazy):
        user.user_permissions.add(Permission.objects.earliest("pk"))

        assert lazy == user
        assert hash(lazy) == hash(user)
        assert get_user_model().objects.filter(pk=lazy.pk).get() == lazy
        assert Permission.objects.filter(user=lazy).count() == 1

    def test_can_be_copied_before_it_is_loaded(self, user, lazy):
        assert copy.copy(lazy) == user
        assert copy.deepcopy(lazy) == user


class TestRequestUser:
    def test_is_the_owner_where_that_is_a_user(self, user):
        found = request_user(replace(GRANT, owner_id=user.pk, loader=UserLoader()))

        assert type(found) is LazyUser
        assert found == user

    def test_is_the_owner_where_the_model_is_a_proxy_of_users(self, user, settings, monkeypatch):
        with isolate_apps("django.contrib.auth") as apps:

            class Person(get_user_model()):
                class Meta:
                    app_label = "auth"
                    proxy = True

        settings.APIKEYS_OWNER_MODEL = "auth.Person"
        monkeypatch.setattr(users, "apps", apps)

        found = request_user(replace(GRANT, owner_id=user.pk, loader=UserLoader()))

        assert apps.get_model("auth.Person") is Person
        assert type(found) is LazyUser

    def test_is_an_api_key_user_for_a_key_of_the_project(self):
        assert request_user(GRANT) == APIKeyUser(GRANT)

    def test_is_an_api_key_user_for_an_owner_who_is_no_user(self, settings):
        settings.APIKEYS_OWNER_MODEL = "auth.Group"
        grant = replace(GRANT, owner_id=1)

        assert request_user(grant) == APIKeyUser(grant)

    def test_is_what_the_policy_says(self, settings):
        settings.APIKEYS_POLICY = "tests.test_users.NamingPolicy"

        assert request_user(GRANT) == "who calls with reports"
