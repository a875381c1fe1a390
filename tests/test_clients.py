import pytest
from django.test import RequestFactory

from django_apikeys.clients import client_address


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
    assert str(client_address(RequestFactory().get("/", **meta))) == expected


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
    assert client_address(RequestFactory().get("/", REMOTE_ADDR=value)) is None


def test_unknown_where_the_server_says_nothing():
    request = RequestFactory().get("/", HTTP_X_FORWARDED_FOR="192.0.2.1")
    del request.META["REMOTE_ADDR"]

    assert client_address(request) is None


PROXIES = ["10.0.0.0/8", "2001:db8:1::/48"]
FORWARDED = {
    "by nobody": ("10.0.0.1", "", "10.0.0.1"),
    "by one": ("10.0.0.1", "203.0.113.7", "203.0.113.7"),
    "by two": ("10.0.0.1", "203.0.113.7, 10.0.0.2", "203.0.113.7"),
    "by one over IPv6": ("2001:db8:1::1", "2001:db8:2::7", "2001:db8:2::7"),
    "by one, mapped": ("::ffff:10.0.0.1", "::ffff:203.0.113.7", "203.0.113.7"),
    "by one, with a port": ("10.0.0.1", "203.0.113.7:4711", "203.0.113.7"),
    "what a client wrote before": ("10.0.0.1", "192.0.2.1, 203.0.113.7", "203.0.113.7"),
    "a trusted one that a client wrote": ("10.0.0.1", "10.9.9.9, 203.0.113.7", "203.0.113.7"),
    "trusted ones alone": ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
    "to a port that is reached directly": ("203.0.113.9", "192.0.2.1", "203.0.113.9"),
    "from nowhere": ("", "192.0.2.1", "None"),
    "rubbish": ("10.0.0.1", "unknown", "None"),
    "rubbish before the client": ("10.0.0.1", "rubbish, 203.0.113.7", "203.0.113.7"),
    "rubbish behind the client": ("10.0.0.1", "203.0.113.7, rubbish", "None"),
    "an empty part": ("10.0.0.1", "203.0.113.7,", "None"),
}


@pytest.mark.parametrize(("remote", "forwarded", "expected"), FORWARDED.values(), ids=FORWARDED)
def test_forwarded(settings, remote, forwarded, expected):
    settings.APIKEYS_TRUSTED_PROXIES = PROXIES
    meta = {"HTTP_X_FORWARDED_FOR": forwarded} if forwarded else {}

    request = RequestFactory().get("/", REMOTE_ADDR=remote, **meta)

    assert str(client_address(request)) == expected


def test_a_list_without_end_is_read_for_a_while(settings):
    settings.APIKEYS_TRUSTED_PROXIES = PROXIES
    forwarded = ",".join(["192.0.2.1"] + ["10.0.0.2"] * 100_000)

    request = RequestFactory().get("/", REMOTE_ADDR="10.0.0.1", HTTP_X_FORWARDED_FOR=forwarded)

    assert str(client_address(request)) == "10.0.0.2"


def test_a_forged_address_opens_no_key(settings, issue, client):
    """Neither over the proxy, which adds the true one, nor past it."""
    settings.APIKEYS_TRUSTED_PROXIES = PROXIES
    issued = issue(scopes=["customers:read"], allowed_ips=["192.0.2.1"])
    headers = {"Authorization": f"Bearer {issued.secret}"}

    def status(remote, forwarded):
        extra = {"REMOTE_ADDR": remote, "HTTP_X_FORWARDED_FOR": forwarded}
        return client.get("/customers/", headers=headers, **extra).status_code

    assert status("10.0.0.1", "192.0.2.1") == 200
    assert status("10.0.0.1", "192.0.2.1, 203.0.113.9") == 403
    assert status("203.0.113.9", "192.0.2.1") == 403
