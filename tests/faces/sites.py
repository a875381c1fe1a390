"""One view behind each face of the door. This module is the URLconf of the faces."""

import json

from django.http import HttpResponse
from django.urls import path
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.vary import vary_on_cookie
from ninja import NinjaAPI
from rest_framework.response import Response
from rest_framework.views import APIView

from django_apikeys.contrib.ninja import APIKeyAuth, APIKeyThrottle, answer_refusals
from django_apikeys.decorators import api_key_required
from django_apikeys.drf import throttling
from django_apikeys.drf.permissions import HasScope
from tests.limiting import utc

# 40 seconds before midnight.
NOW = utc(2026, 11, 20, 23, 59, 20)
SCOPES = {"GET": ["customers:read"], "POST": ["customers:write"], "DELETE": []}


def told(request):
    """Return who called."""
    return {"key": request.auth.public_id, "user": request.user.get_username()}


async def atold(request):
    """The same, without a query in the event loop."""
    user = await request.auser()
    return {"key": request.auth.public_id, "user": user.get_username()}


def answer(told):
    body = json.dumps(told, separators=(",", ":"))
    return HttpResponse(body, content_type="application/json")


class StoppedThrottle(throttling.APIKeyThrottle):
    """Takes the time from here."""

    @staticmethod
    def timer():
        return NOW


class DRFView(APIView):
    required_scopes = SCOPES
    permission_classes = [HasScope]
    throttle_classes = [StoppedThrottle]

    def get(self, request):
        return Response(told(request))

    post = put = delete = get


@api_key_required(scopes=SCOPES)
def function(request):
    return answer(told(request))


@method_decorator(api_key_required(scopes=SCOPES), name="dispatch")
class Dispatched(View):
    def get(self, request):
        return answer(told(request))

    post = put = delete = get


class Bare(View):
    def get(self, request):
        return answer(told(request))

    post = put = delete = get


@method_decorator(csrf_exempt, name="dispatch")
class ByMethod(View):
    @method_decorator(api_key_required(scopes=SCOPES))
    def get(self, request):
        return answer(told(request))

    post = put = delete = get


@api_key_required(scopes=SCOPES)
async def afunction(request):
    return answer(await atold(request))


class ABare(View):
    async def get(self, request):
        return answer(await atold(request))

    post = put = delete = get


@method_decorator(api_key_required(scopes=SCOPES), name="dispatch")
class ADispatched(ABare):
    """The same, guarded by its dispatch."""


@method_decorator([vary_on_cookie, api_key_required(scopes=SCOPES), csrf_exempt], name="dispatch")
class AStacked(ABare):
    """With other decorators around ours and within."""


@method_decorator(csrf_exempt, name="dispatch")
class AByMethod(View):
    @method_decorator(api_key_required(scopes=SCOPES))
    async def get(self, request):
        return answer(await atold(request))

    post = put = delete = get


METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE"]


def ninja_api(name, **kwargs):
    """Return the URLs of an API whose one operation asks as the other faces do."""
    api = NinjaAPI(urls_namespace=name, docs_url=None, openapi_url=None, **kwargs)
    answer_refusals(api)

    @api.api_operation(METHODS, "/sync/")
    def operation(request):
        return answer(told(request))

    @api.api_operation(METHODS, "/async/")
    async def aoperation(request):
        return answer(await atold(request))

    return api.urls


ninja = ninja_api("counts-in-auth", auth=APIKeyAuth(scopes=SCOPES))
ninja_both = ninja_api(
    "counts-in-both", auth=APIKeyAuth(scopes=SCOPES), throttle=[APIKeyThrottle()]
)
ninja_throttle = ninja_api(
    "counts-in-throttle", auth=APIKeyAuth(scopes=SCOPES, cost=None), throttle=[APIKeyThrottle()]
)

urlpatterns = [
    path("drf/", DRFView.as_view()),
    path("function/", function),
    path("dispatched/", Dispatched.as_view()),
    path("as-view/", api_key_required(scopes=SCOPES)(Bare.as_view())),
    path("by-method/", ByMethod.as_view()),
    path("async-function/", afunction),
    path("async-dispatched/", ADispatched.as_view()),
    path("async-stacked/", AStacked.as_view()),
    path("async-as-view/", api_key_required(scopes=SCOPES)(ABare.as_view())),
    path("async-by-method/", AByMethod.as_view()),
]
FACES = [
    *(str(pattern.pattern) for pattern in urlpatterns),
    "ninja/sync/",
    "ninja/async/",
    "ninja-both/sync/",
    "ninja-both/async/",
    "ninja-throttle/sync/",
]
urlpatterns += [
    path("ninja/", ninja),
    path("ninja-both/", ninja_both),
    path("ninja-throttle/", ninja_throttle),
]
