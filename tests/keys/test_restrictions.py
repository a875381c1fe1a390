from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from itertools import combinations
from typing import Any

import pytest

from django_apikeys.keys.restrictions import CURRENT, PREVIOUS, KeyState, Refusal, refusal

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
TICK = timedelta(microseconds=1)
ADDRESS = ip_address("192.0.2.1")
ALIVE = KeyState(
    allowed_ips=[],
    slot=CURRENT,
    retires_at=None,
    revoked_at=None,
    enabled=True,
    expires_at=None,
    owner_is_active=True,
)

# Checks 4 to 9 of the contract, in its order.
CHECKS: list[tuple[Refusal, dict[str, Any]]] = [
    (Refusal.ADDRESS_NOT_ALLOWED, {"allowed_ips": ["198.51.100.0/24"]}),
    (Refusal.RETIRED_SECRET, {"slot": None}),
    (Refusal.REVOKED_KEY, {"revoked_at": NOW}),
    (Refusal.DISABLED_KEY, {"enabled": False}),
    (Refusal.EXPIRED_KEY, {"expires_at": NOW}),
    (Refusal.INACTIVE_OWNER, {"owner_is_active": False}),
]


def test_a_key_without_restrictions_is_let_in():
    assert refusal(ALIVE, ADDRESS, NOW) is None


@pytest.mark.parametrize(
    ("code", "fields"), [pytest.param(code, fields, id=code) for code, fields in CHECKS]
)
def test_one_reason(code, fields):
    assert refusal(replace(ALIVE, **fields), ADDRESS, NOW) == code


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        pytest.param(earlier, later, id=f"{earlier[0]} before {later[0]}")
        for earlier, later in combinations(CHECKS, 2)
    ],
)
def test_of_two_reasons_the_earlier_is_answered(earlier, later):
    code, fields = earlier

    assert refusal(replace(ALIVE, **later[1], **fields), ADDRESS, NOW) == code


def test_of_all_reasons_the_first_is_answered():
    fields = {name: value for _, fields in CHECKS for name, value in fields.items()}

    assert refusal(replace(ALIVE, **fields), ADDRESS, NOW) == "address_not_allowed"


def test_the_codes_are_those_of_the_contract():
    assert [str(code) for code in Refusal] == [
        "address_not_allowed",
        "retired_secret",
        "revoked_key",
        "disabled_key",
        "expired_key",
        "inactive_owner",
    ]


@pytest.mark.parametrize(
    ("expires_at", "expected"),
    [
        pytest.param(NOW - TICK, "expired_key", id="past"),
        pytest.param(NOW, "expired_key", id="exactly now"),
        pytest.param(NOW + TICK, None, id="to come"),
    ],
)
def test_expiry(expires_at, expected):
    assert refusal(replace(ALIVE, expires_at=expires_at), ADDRESS, NOW) == expected


@pytest.mark.parametrize(
    ("slot", "retires_at", "expected"),
    [
        pytest.param(CURRENT, None, None, id="current"),
        pytest.param(PREVIOUS, NOW + TICK, None, id="previous in its grace"),
        pytest.param(PREVIOUS, None, None, id="previous before a first use"),
        pytest.param(PREVIOUS, NOW, "retired_secret", id="grace ends exactly now"),
        pytest.param(PREVIOUS, NOW - TICK, "retired_secret", id="grace is over"),
        pytest.param(None, None, "retired_secret", id="retired"),
        pytest.param(None, NOW + TICK, "retired_secret", id="retired before its time"),
    ],
)
def test_rotation(slot, retires_at, expected):
    state = replace(ALIVE, slot=slot, retires_at=retires_at)

    assert refusal(state, ADDRESS, NOW) == expected


def test_a_revoke_in_the_future_is_a_revoke():
    """Clocks differ between machines: the column counts, not its value."""
    assert refusal(replace(ALIVE, revoked_at=NOW + TICK), ADDRESS, NOW) == "revoked_key"


@pytest.mark.parametrize(
    ("allowed_ips", "address", "is_allowed"),
    [
        pytest.param([], "192.0.2.1", True, id="no list"),
        pytest.param([], None, True, id="no list, address unknown"),
        pytest.param(["192.0.2.1"], "192.0.2.1", True, id="the address"),
        pytest.param(["192.0.2.0/24"], "192.0.2.1", True, id="its network"),
        pytest.param(["198.51.100.1", "192.0.2.0/24"], "192.0.2.1", True, id="one of two"),
        pytest.param(["192.0.2.2"], "192.0.2.1", False, id="another address"),
        pytest.param(["192.0.2.1"], None, False, id="address unknown"),
        pytest.param(["2001:db8::/32"], "2001:db8::1", True, id="IPv6"),
        pytest.param(["2001:db8::/32"], "192.0.2.1", False, id="other version"),
        pytest.param(["::/0"], "192.0.2.1", False, id="all of IPv6 is not IPv4"),
    ],
)
def test_address(allowed_ips, address, is_allowed):
    state = replace(ALIVE, allowed_ips=allowed_ips)
    client = None if address is None else ip_address(address)

    assert (refusal(state, client, NOW) is None) is is_allowed


@pytest.mark.parametrize(
    "allowed_ips",
    [
        pytest.param(None, id="null"),
        pytest.param("", id="empty text"),
        pytest.param("192.0.2.1", id="text"),
        pytest.param({}, id="empty object"),
        pytest.param({"192.0.2.1": True}, id="object"),
        pytest.param(0, id="number"),
        pytest.param(False, id="false"),
        pytest.param([None], id="list of null"),
        pytest.param([""], id="list of an empty text"),
        pytest.param([3221225985], id="list of a number"),
        pytest.param([["192.0.2.1"]], id="list of a list"),
        pytest.param([{"192.0.2.1": 1}], id="list of an object"),
        pytest.param(["192.0.2.1/24"], id="host bits set"),
        pytest.param(["rubbish"], id="rubbish"),
    ],
)
def test_a_list_that_cannot_be_read_allows_nobody(allowed_ips):
    state = replace(ALIVE, allowed_ips=allowed_ips)

    assert refusal(state, ADDRESS, NOW) == "address_not_allowed"


def test_beside_an_entry_that_cannot_be_read_the_others_count():
    state = replace(ALIVE, allowed_ips=[["rubbish"], None, "192.0.2.1"])

    assert refusal(state, ADDRESS, NOW) is None
