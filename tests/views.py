"""The views that the tests call, one for each way to declare scopes."""

from rest_framework.decorators import api_view, permission_classes
from rest_framework.permissions import AllowAny, IsAuthenticated
from rest_framework.response import Response
from rest_framework.views import APIView
from rest_framework.viewsets import ViewSet

from django_apikeys.drf.permissions import HasAPIKey, HasScope


class Answers(APIView):
    """Answers who called."""

    def get(self, request):
        return Response({"user": request.user.get_username()})

    post = put = patch = delete = get


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
