"""``HasPlan``: endpoints of a plan. This module is its own URLconf."""

import pytest
from django.contrib.auth.models import AnonymousUser
from django.urls import path
from rest_framework.permissions import IsAdminUser, IsAuthenticated
from rest_framework.response import Response
from rest_framework.test import APIRequestFactory
from rest_framework.views import APIView

from django_apikeys.drf.permissions import HasPlan, HasScope
from django_apikeys.policy import UserPolicy
from tests.conftest import bearer
from tests.factories import UserFactory

MESSAGE = "This needs one of the plans: pro, enterprise."


class NamedPolicy(UserPolicy):
    """Everybody is on the plan that they are called."""

    def plan(self, owner):
        return owner["username"]


class Open(APIView):
    required_scopes = []

    def get(self, request):
        return Response({})


class OfPlan(Open):
    permission_classes = [HasPlan("pro", "enterprise")]


class Undeclared(OfPlan):
    required_scopes = None


class OfPlanWithScope(Open):
    required_scopes = None
    permission_classes = [HasPlan("pro"), HasScope("jobs:read")]


class OfPlanOrAdmin(Open):
    permission_classes = [HasPlan("pro") | IsAdminUser]


class OfPlanAndScope(Open):
    permission_classes = [HasPlan("pro") & HasScope("jobs:read")]


class NotOfPlan(Open):
    permission_classes = [IsAuthenticated & ~HasPlan("free")]


class OfPlanOnObjects(Open):
    """An object is for ``pro``, whoever has the scope gets so far."""

    permission_classes = [HasPlan("pro") | HasPlan("free") & ~HasScope("jobs:read")]

    def get(self, request):
        self.check_object_permissions(request, object())
        return Response({})


urlpatterns = [
    path("of-plan/", OfPlan.as_view()),
    path("undeclared/", Undeclared.as_view()),
    path("with-scope/", OfPlanWithScope.as_view()),
    path("or-admin/", OfPlanOrAdmin.as_view()),
    path("and-scope/", OfPlanAndScope.as_view()),
    path("not/", NotOfPlan.as_view()),
    path("objects/", OfPlanOnObjects.as_view()),
]


@pytest.fixture
def _site(settings):
    settings.ROOT_URLCONF = __name__
    settings.APIKEYS_POLICY = f"{__name__}.NamedPolicy"


@pytest.fixture
def call(issue, client, _site):
    """The answer to a key with *scopes* of an owner on *plan*."""

    def call(url, plan, *scopes):
        owner = None if plan is None else UserFactory(username=plan)
        return client.get(url, headers=bearer(issue(owner=owner, scopes=scopes).secret))

    return call


@pytest.mark.parametrize(
    ("url", "plan", "scopes", "status"),
    [
        ("/of-plan/", "pro", [], 200),
        ("/of-plan/", "enterprise", [], 200),
        ("/of-plan/", "free", ["*"], 403),
        ("/of-plan/", "pr", [], 403),
        pytest.param("/of-plan/", None, ["*"], 403, id="a key of the project"),
        ("/undeclared/", "pro", ["*"], 403),
        ("/with-scope/", "pro", ["jobs:read"], 200),
        ("/with-scope/", "pro", [], 403),
        ("/with-scope/", "free", ["jobs:read"], 403),
        ("/or-admin/", "pro", [], 200),
        ("/or-admin/", "free", [], 403),
        ("/and-scope/", "pro", ["jobs:read"], 200),
        ("/and-scope/", "pro", [], 403),
        ("/and-scope/", "free", ["jobs:read"], 403),
        ("/not/", "free", [], 403),
        ("/not/", "pro", [], 200),
        ("/objects/", "pro", ["jobs:read"], 200),
        ("/objects/", "free", [], 200),
        ("/objects/", "free", ["jobs:read"], 403),
        ("/objects/", "other", [], 403),
    ],
)
def test_a_key_needs_its_plan(call, url, plan, scopes, status):
    assert call(url, plan, *scopes).status_code == status


def test_a_refusal_names_the_plans(call, settings):
    plain = call("/of-plan/", "free")
    settings.REST_FRAMEWORK = {
        **settings.REST_FRAMEWORK,
        "EXCEPTION_HANDLER": "django_apikeys.drf.exceptions.exception_handler",
    }
    envelope = call("/of-plan/", "other")

    assert (plain.status_code, envelope.status_code) == (403, 403)
    assert plain.json() == {"detail": MESSAGE, "code": "permission_denied"}
    assert envelope.json() == {
        "error": {"code": "FORBIDDEN", "reason": "permission_denied", "message": MESSAGE}
    }
    assert not plain.has_header("WWW-Authenticate")


@pytest.mark.usefixtures("_site")
@pytest.mark.parametrize(("url", "status"), [("/of-plan/", 403), ("/not/", 200)])
def test_a_person_has_none(as_user, url, status):
    assert as_user.get(url).status_code == status


@pytest.mark.usefixtures("_site")
@pytest.mark.django_db
def test_nobody_has_none(client):
    assert client.get("/of-plan/").status_code == 401


def test_is_the_same_on_an_object():
    request = Open().initialize_request(APIRequestFactory().get("/"))
    request.user, request.auth = AnonymousUser(), None

    assert HasPlan("pro").has_object_permission(request, Open(), object()) is False


def test_declares_nothing():
    assert not hasattr(HasPlan("pro"), "declared_scopes")


@pytest.mark.parametrize("plans", [(), ("",), (["pro", "enterprise"],), ("pro", None), (1,)])
def test_without_a_plan_cannot_be_imported(plans):
    with pytest.raises(ValueError, match=r"^HasPlan takes the names of one or more plans, not "):
        HasPlan(*plans)
