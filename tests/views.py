"""The views that the tests call, one for each way to declare scopes."""

import itertools

from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied
from django.http import Http404, JsonResponse
from django.utils.decorators import method_decorator
from django.views.decorators.cache import cache_page
from rest_framework import exceptions
from rest_framework.authentication import BaseAuthentication, SessionAuthentication
from rest_framework.decorators import api_view, permission_classes
from rest_framework.permissions import AllowAny, IsAdminUser, IsAuthenticated
from rest_framework.response import Response
from rest_framework.views import APIView
from rest_framework.viewsets import ViewSet

from django_apikeys.decorators import api_key_required
from django_apikeys.drf.authentication import APIKeyAuthentication
from django_apikeys.drf.exceptions import as_api_exception
from django_apikeys.drf.permissions import HasAPIKey, HasScope
from django_apikeys.exceptions import Unavailable


class Answers(APIView):
    """Answers who called."""

    def get(self, request):
        return Response({"user": request.user.get_username()})

    post = put = patch = delete = get


@api_key_required(scopes=["customers:read"])
def plain(request):
    return JsonResponse({"user": request.user.get_username()})


@api_key_required(scopes=["customers:read"])
async def async_plain(request):
    return JsonResponse({"user": (await request.auser()).get_username()})


class Customers(Answers):
    scope_resource = "customers"


class Open(Answers):
    required_scopes = []


class Undeclared(Answers):
    permission_classes = [IsAuthenticated]


class Public(Answers):
    permission_classes = [AllowAny]
    required_scopes = []


class KeysOnly(Answers):
    permission_classes = [HasAPIKey]
    required_scopes = []


class ByMethod(Answers):
    required_scopes = {"GET": ["jobs:read"], "POST": ["jobs:read", "jobs:write"]}


class ByAction(ViewSet):
    required_scopes = {"list": ["jobs:read"], "POST": ["jobs:write"]}

    def list(self, request):
        return Response([])

    def create(self, request):
        return Response({}, status=201)

    def destroy(self, request):
        return Response(status=204)


@api_view(["GET"])
@permission_classes([HasScope("jobs:read")])
def function_view(request):
    return Response({})


class Jobs(APIView):
    """Answers without a look at who called, so that its queries are those of the key."""

    scope_resource = "jobs"

    def get(self, request):
        return Response({})

    post = get


class JobsOfAuthenticated(Jobs):
    permission_classes = [IsAuthenticated, HasScope]


class OpenToAll(Jobs):
    scope_resource = None
    required_scopes = {"GET": [], "POST": ["jobs:write"]}
    permission_classes = [AllowAny]


class Declared(Answers):
    permission_classes = [IsAuthenticated, HasScope("jobs:read")]


class DeclaredTwice(Answers):
    required_scopes = ["customers:read"]
    permission_classes = [HasScope("jobs:read")]


class EitherDeclared(Answers):
    permission_classes = [HasScope("jobs:read") | IsAuthenticated]


class ScopeOrAuthenticated(Answers):
    required_scopes = ["jobs:read"]
    permission_classes = [HasScope | IsAuthenticated]


class ScopeOrAdmin(Answers):
    required_scopes = ["customers:read"]
    permission_classes = [HasScope("jobs:write") | IsAdminUser]


class BothScopes(Answers):
    required_scopes = []
    permission_classes = [HasScope("jobs:read") & HasScope("jobs:write")]


class NoKeys(Answers):
    required_scopes = []
    permission_classes = [IsAuthenticated & ~HasAPIKey]


class NotWriters(Answers):
    required_scopes = []
    permission_classes = [HasAPIKey & ~HasScope("jobs:write")]


class Objects(Answers):
    """Asks for one scope of the request and, on the object, for either of two."""

    required_scopes = ["customers:read"]
    permission_classes = [HasScope("jobs:write") | HasAPIKey & ~HasScope("jobs:read")]

    def get(self, request):
        self.check_object_permissions(request, object())
        return Response({})


class ScopeByGetPermissions(Answers):
    required_scopes = ["customers:read"]

    def get_permissions(self):
        return [HasScope("jobs:write")]


class DeclaresNothingAndHasAPIKey(Answers):
    permission_classes = [HasAPIKey]


class ThirdParty(APIView):
    """As a package has it that knows nothing of keys: a change of password, say."""

    permission_classes = [IsAuthenticated]

    def post(self, request):
        return Response({"user": request.user.get_username()})


class ListsOfText(Answers):
    required_scopes = "jobs:read"


class ActionWins(ViewSet):
    required_scopes = {"list": ["jobs:read"], "GET": ["jobs:write"], "retrieve": None}

    def list(self, request):
        return Response([])

    def retrieve(self, request):
        return Response({})


class ForeignBearer(BaseAuthentication):
    """The bearer tokens of somebody else: ``Bearer foreign-<user name>``."""

    def authenticate(self, request):
        scheme, _, name = request.META.get("HTTP_AUTHORIZATION", "").partition(" foreign-")
        if scheme != "Bearer":
            return None
        return get_user_model().objects.get(username=name), name

    def authenticate_header(self, request):
        return 'Bearer realm="foreign"'


class BesideForeign(Answers):
    required_scopes = []
    authentication_classes = [APIKeyAuthentication, ForeignBearer]


class SessionFirst(Answers):
    scope_resource = "customers"
    authentication_classes = [SessionAuthentication, APIKeyAuthentication]


class ForeignFirst(Answers):
    scope_resource = "customers"
    authentication_classes = [ForeignBearer, SessionAuthentication, APIKeyAuthentication]


class Caller(APIView):
    """What a view sees of the one who called."""

    required_scopes = []

    def get(self, request):
        return Response(
            {
                "user": type(request.user).__name__,
                "pk": request.user.pk,
                "is_authenticated": request.user.is_authenticated,
                "auth": type(request.auth).__name__,
            }
        )


class OwnStatus(exceptions.APIException):
    status_code = 499
    default_detail = "The client went away."
    default_code = "went_away"


class Conflicting(exceptions.APIException):
    status_code = 409
    default_detail = "Somebody was faster."
    default_code = "too_late"


class Failing(APIView):
    """Raises the error whose name the path has."""

    permission_classes = [AllowAny]
    required_scopes = []
    errors = {
        "http404": Http404("Nothing here."),
        "denied": PermissionDenied("Not you."),
        "parse-error": exceptions.ParseError(),
        "not-authenticated": exceptions.NotAuthenticated(),
        "authentication-failed": exceptions.AuthenticationFailed(),
        "permission-denied": exceptions.PermissionDenied(),
        "not-found": exceptions.NotFound(),
        "method-not-allowed": exceptions.MethodNotAllowed("GET"),
        "not-acceptable": exceptions.NotAcceptable(),
        "unsupported-media-type": exceptions.UnsupportedMediaType("text/x"),
        "throttled": exceptions.Throttled(wait=41.2),
        "validation": exceptions.ValidationError({"name": ["Too long."]}),
        "validation-list": exceptions.ValidationError(["Too long."]),
        "validation-text": exceptions.ValidationError("Too long."),
        "api-exception": exceptions.APIException(),
        "many-details": exceptions.APIException({"a": "one", "b": "two"}),
        "own-status": OwnStatus(),
        "conflict": Conflicting(),
        "unavailable": as_api_exception(Unavailable()),
        "runtime-error": RuntimeError("A bug."),
    }

    def get(self, request, name):
        raise self.errors[name]


# The caches. Each answer has a number of its own, so that a stored one betrays itself.

_numbers = itertools.count()


def told(request):
    auth = getattr(request.auth, "public_id", None)
    return {"key": auth, "user": request.user.get_username(), "number": next(_numbers)}


class Told(APIView):
    permission_classes = [AllowAny]
    required_scopes = []

    def get(self, request):
        return Response(told(request))


class ToldStrictly(Told):
    def get(self, request):
        return Response(told(request), headers={"Cache-Control": "no-store, max-age=0"})


class ToldPublicly(Told):
    def get(self, request):
        return Response(told(request), headers={"Cache-Control": "public, max-age=60"})


@method_decorator(cache_page(60), name="dispatch")
class CachedDispatch(Told):
    pass


class CachedGet(Told):
    @method_decorator(cache_page(60))
    def get(self, request):
        return Response(told(request))


class CachedPlainGet(Told):
    """Answers with Django's own response, which is stored before the view has finished."""

    @method_decorator(cache_page(60))
    def get(self, request):
        return JsonResponse(told(request))


class CachedList(ViewSet):
    permission_classes = [AllowAny]
    required_scopes = []

    @method_decorator(cache_page(60))
    def list(self, request):
        return Response(told(request))


@api_view(["GET"])
@permission_classes([HasScope("jobs:read") | AllowAny])
@cache_page(60)
def api_view_over_cache(request):
    return Response(told(request))


@cache_page(60)
@api_view(["GET"])
@permission_classes([HasScope("jobs:read") | AllowAny])
def api_view_under_cache(request):
    return Response(told(request))


api_view_over_cache.cls.required_scopes = []
api_view_under_cache.cls.required_scopes = []
