import pytest
from django.test import RequestFactory

from django_apikeys.clients import remote_address


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        pytest.param({"REMOTE_ADDR": "192.0.2.1"}, "192.0.2.1", id="IPv4"),
        pytest.param({"REMOTE_ADDR": "192.0.2.1:5000"}, "192.0.2.1", id="with port"),
        pytest.param({"REMOTE_ADDR": "2001:db8::1"}, "2001:db8::1", id="IPv6"),
        pytest.param({"REMOTE_ADDR": "[2001:db8::1]:5000"}, "2001:db8::1", id="IPv6 with port"),
        pytest.param({"REMOTE_ADDR": "::ffff:192.0.2.1"}, "192.0.2.1", id="mapped"),
        pytest.param({"REMOTE_ADDR": "fe80::1%eth0"}, "fe80::1", id="zone"),
        pytest.param(
            {"REMOTE_ADDR": "192.0.2.1", "HTTP_X_FORWARDED_FOR": "198.51.100.1"},
            "192.0.2.1",
            id="beside a forwarded one",
        ),
        pytest.param(
            {"REMOTE_ADDR": "192.0.2.1", "HTTP_X_REAL_IP": "198.51.100.1"},
            "192.0.2.1",
            id="beside a real one",
        ),
        pytest.param(
            {"REMOTE_ADDR": "192.0.2.1", "HTTP_FORWARDED": "for=198.51.100.1"},
            "192.0.2.1",
            id="beside a Forwarded header",
        ),
    ],
)
def test_address(meta, expected):
    assert str(remote_address(RequestFactory().get("/", **meta))) == expected


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("", id="empty"),
        pytest.param("unix:", id="unix"),
        pytest.param("rubbish", id="rubbish"),
        pytest.param(b"192.0.2.1", id="bytes"),
        pytest.param(None, id="none"),
        pytest.param(("192.0.2.1", 5000), id="pair"),
    ],
)
def test_unknown(value):
    assert remote_address(RequestFactory().get("/", REMOTE_ADDR=value)) is None


def test_unknown_where_the_server_says_nothing():
    request = RequestFactory().get("/", HTTP_X_FORWARDED_FOR="192.0.2.1")
    del request.META["REMOTE_ADDR"]

    assert remote_address(request) is None
