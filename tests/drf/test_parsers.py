"""JSON as input."""

import pytest
from rest_framework.permissions import AllowAny
from rest_framework.response import Response
from rest_framework.test import APIRequestFactory
from rest_framework.views import APIView

from django_apikeys.drf.parsers import JSONParser


class Echo(APIView):
    authentication_classes = []
    permission_classes = [AllowAny]
    parser_classes = [JSONParser]

    def post(self, request):
        return Response(request.data)


def post(body):
    request = APIRequestFactory().generic("POST", "/", body, content_type="application/json")
    return Echo.as_view()(request)


@pytest.mark.parametrize("body", ["[" * 100_000, '{"a":' * 100_000], ids=["lists", "dicts"])
def test_json_that_is_nested_too_deeply_is_400(body):
    response = post(body)

    assert response.status_code == 400
    assert response.data == {"detail": "The body is nested too deeply."}


def test_json_that_is_none_is_400():
    response = post('{"a"')

    assert response.status_code == 400
    assert response.data["detail"].startswith("JSON parse error")


def test_good_json_is_read():
    response = post('{"name": "Ann", "list": [[1], {"a": null}]}')

    assert response.status_code == 200
    assert response.data == {"name": "Ann", "list": [[1], {"a": None}]}
