"""Whether one reach lies within another: the ceiling of section 4."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_apikeys.keys.ceiling import Reach, excess, widens
from django_apikeys.keys.rates import Rate, parse_rate
from django_apikeys.keys.scopes import RESERVED

one_second = settings(max_examples=100, deadline=None)

REGISTRY = {
    "customers:read": "Read customers",
    "customers:write": "Change customers",
    "jobs:read": "Read jobs",
    "jobs:write": "Change jobs",
    **RESERVED,
}
EVERY_SCOPE = ["customers:read", "customers:write", "jobs:read", "jobs:write"]
EARLIER = datetime(2100, 1, 1, tzinfo=UTC)
LATER = datetime(2100, 1, 1, 0, 0, 1, tzinfo=UTC)
EARLIER_ELSEWHERE = datetime(2100, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
LATER_ELSEWHERE = datetime(2100, 1, 1, 2, 0, 1, tzinfo=timezone(timedelta(hours=2)))


def reach(*, scopes=(), allowed_ips=None, expires_at=None, rate=None, enabled=True):
    return Reach(
        scopes=scopes,
        allowed_ips=allowed_ips,
        expires_at=expires_at,
        rate=None if rate is None else parse_rate(rate),
        enabled=enabled,
    )


class TestScopes:
    @pytest.mark.parametrize(
        ("scopes", "ceiling", "beyond"),
        [
            pytest.param([], [], [], id="none within none"),
            pytest.param([], ["jobs:read"], [], id="none"),
            pytest.param(["jobs:read"], ["jobs:read"], [], id="the same"),
            pytest.param(["jobs:read"], [], ["jobs:read"], id="a scope, none"),
            pytest.param(["jobs:write"], ["jobs:read"], ["jobs:write"], id="write, read"),
            pytest.param(["jobs:read"], ["jobs:write"], ["jobs:read"], id="read, write"),
            pytest.param(
                ["jobs:write", "customers:read", "jobs:read"],
                ["jobs:read"],
                ["jobs:write", "customers:read"],
                id="those beyond, in their order",
            ),
            pytest.param(["jobs:read"], ["jobs:*"], [], id="a scope of the wildcard"),
            pytest.param(["customers:read"], ["jobs:*"], ["customers:read"], id="of another"),
            pytest.param(["jobs:*"], ["jobs:*"], [], id="the same wildcard"),
            pytest.param(["jobs:*", "jobs:read"], ["*"], [], id="everything of a star"),
            pytest.param(["*"], ["*"], [], id="star, star"),
            pytest.param(["*"], ["jobs:*"], ["*"], id="star, wildcard"),
            pytest.param(["apikeys:read"], ["apikeys:read"], [], id="reserved by its name"),
            pytest.param(["apikeys:read"], ["*"], ["apikeys:read"], id="reserved, star"),
            pytest.param(
                ["apikeys:read"], ["apikeys:write"], ["apikeys:read"], id="reserved, write"
            ),
            pytest.param(["self:rotate"], ["self:*"], ["self:rotate"], id="reserved, wildcard"),
            pytest.param(["self:revoke"], ["self:revoke"], [], id="of itself by its name"),
        ],
    )
    @pytest.mark.parametrize("registry", [None, REGISTRY], ids=["without", "with"])
    def test_are_alike_with_and_without_a_registry(self, scopes, ceiling, beyond, registry):
        found = excess(reach(scopes=scopes), reach(scopes=ceiling), registry)

        assert found == ({"scopes": beyond} if beyond else {})

    @pytest.mark.parametrize(
        ("scopes", "ceiling", "beyond"),
        [
            pytest.param(["jobs:*"], ["jobs:read", "jobs:write"], ["jobs:*"], id="all of a kind"),
            pytest.param(["*"], EVERY_SCOPE, ["*"], id="all there are"),
            pytest.param(["*"], ["jobs:*", "customers:*"], ["*"], id="all wildcards"),
        ],
    )
    def test_wildcard_covers_what_is_registered_later_too(self, scopes, ceiling, beyond):
        """A key has today's scopes, and its child must not grow with the registry."""
        wide, narrow = reach(scopes=scopes), reach(scopes=ceiling)

        assert excess(wide, narrow) == {"scopes": beyond}
        assert excess(wide, narrow, REGISTRY) == {}

    def test_wildcard_is_beyond_what_a_part_of_the_registry_covers(self):
        found = excess(reach(scopes=["jobs:*", "*"]), reach(scopes=["jobs:read"]), REGISTRY)

        assert found == {"scopes": ["jobs:*", "*"]}

    def test_implied_scopes_count_where_the_ceiling_has_them(self):
        """Whoever compares hands over the closure of the ceiling."""
        closed = frozenset({"jobs:write", "jobs:read"})

        assert excess(reach(scopes=["jobs:read"]), reach(scopes=closed)) == {}


@pytest.mark.parametrize(
    ("allowed_ips", "ceiling", "beyond"),
    [
        pytest.param(None, None, [], id="everywhere, everywhere"),
        pytest.param(["192.0.2.7"], None, [], id="an address, everywhere"),
        pytest.param(None, ["192.0.2.0/24"], ["everywhere"], id="everywhere, a network"),
        pytest.param(None, [], ["everywhere"], id="everywhere, nowhere"),
        pytest.param(None, ["0.0.0.0/0", "::/0"], ["everywhere"], id="everywhere, all networks"),
        pytest.param([], ["192.0.2.0/24"], [], id="nowhere"),
        pytest.param(["192.0.2.0/24"], ["192.0.2.0/24"], [], id="the same"),
        pytest.param(["192.0.2.7"], ["192.0.2.0/24"], [], id="an address of it"),
        pytest.param(["192.0.2.0/25"], ["192.0.2.0/24"], [], id="subnet"),
        pytest.param(["192.0.2.0/23"], ["192.0.2.0/24"], ["192.0.2.0/23"], id="supernet"),
        pytest.param(["192.0.3.0/24"], ["192.0.2.0/24"], ["192.0.3.0/24"], id="neighbour"),
        pytest.param(["192.0.2.0/24"], [], ["192.0.2.0/24"], id="a network, nowhere"),
        pytest.param(["192.0.2.0/24"], ["192.0.2.0/25", "192.0.2.128/25"], [], id="two halves"),
        pytest.param(
            ["192.0.2.0/24"],
            ["192.0.2.0/25", "192.0.2.192/26"],
            ["192.0.2.0/24"],
            id="half and a quarter",
        ),
        pytest.param(
            ["192.0.2.7", "198.51.100.1", "10.0.0.0/8"],
            ["192.0.2.0/24"],
            ["198.51.100.1", "10.0.0.0/8"],
            id="those outside, in their order",
        ),
        pytest.param(["2001:db8::/48"], ["2001:db8::/32"], [], id="IPv6 subnet"),
        pytest.param(["2001:db8::/32"], ["2001:db8::/48"], ["2001:db8::/32"], id="IPv6 supernet"),
        pytest.param(["192.0.2.7"], ["::/0"], ["192.0.2.7"], id="IPv4, all of IPv6"),
        pytest.param(["::1"], ["0.0.0.0/0"], ["::1"], id="IPv6, all of IPv4"),
        pytest.param(["192.0.2.7"], ["2001:db8::/32", "192.0.2.0/24"], [], id="both versions"),
        pytest.param(["::ffff:192.0.2.7"], ["192.0.2.0/24"], [], id="mapped"),
        pytest.param(["192.0.2.7"], ["::ffff:192.0.2.0/120"], [], id="mapped ceiling"),
        pytest.param(["::ffff:10.0.0.1"], ["::/0"], ["::ffff:10.0.0.1"], id="mapped is IPv4"),
        pytest.param(["rubbish"], ["192.0.2.0/24"], [], id="unreadable lets nobody in"),
        pytest.param(["192.0.2.7"], ["rubbish"], ["192.0.2.7"], id="unreadable ceiling"),
        pytest.param(["192.0.2.7"], ["rubbish", "192.0.2.7"], [], id="unreadable beside"),
    ],
)
def test_networks(allowed_ips, ceiling, beyond):
    found = excess(reach(allowed_ips=allowed_ips), reach(allowed_ips=ceiling))

    assert {name: list(texts) for name, texts in found.items()} == (
        {"allowed_ips": beyond} if beyond else {}
    )


@pytest.mark.parametrize(
    ("expires_at", "ceiling", "beyond"),
    [
        pytest.param(None, None, None, id="never, never"),
        pytest.param(LATER, None, None, id="a moment, never"),
        pytest.param(None, LATER, "never", id="never, a moment"),
        pytest.param(EARLIER, EARLIER, None, id="equal"),
        pytest.param(EARLIER_ELSEWHERE, EARLIER, None, id="equal, in another zone"),
        pytest.param(EARLIER, LATER, None, id="earlier"),
        pytest.param(LATER, EARLIER, "2100-01-01T00:00:01+00:00", id="later"),
        pytest.param(
            LATER_ELSEWHERE,
            EARLIER,
            "2100-01-01T00:00:01+00:00",
            id="later, in another zone, told in UTC",
        ),
    ],
)
def test_expiry(expires_at, ceiling, beyond):
    found = excess(reach(expires_at=expires_at), reach(expires_at=ceiling))

    assert found == ({"expires_at": (beyond,)} if beyond else {})


@pytest.mark.parametrize(
    ("rate", "ceiling", "beyond"),
    [
        pytest.param(None, None, None, id="none, none"),
        pytest.param("999999999/s", None, None, id="any, none"),
        pytest.param(None, "1/d", "unlimited", id="none, any"),
        pytest.param("60/m", "60/m", None, id="the same"),
        pytest.param("59/m", "60/m", None, id="fewer"),
        pytest.param("61/m", "60/m", "61/m", id="more"),
        pytest.param("60/m", "1/s", "60/m", id="60 at once in one second"),
        pytest.param("1/m", "1/s", None, id="one in a minute, one in a second"),
        pytest.param("1/s", "60/m", None, id="one in each second of the minute"),
        pytest.param("2/s", "119/m", "2/s", id="two in each second, one too few"),
        pytest.param("3600/h", "60/m", "3600/h", id="an hour's at once in a minute"),
        pytest.param("60/h", "60/m", None, id="60 in an hour, 60 in a minute"),
        pytest.param("10/d", "10/s", None, id="ten in a day, ten in a second"),
        pytest.param("10/d", "9/s", "10/d", id="ten in a day, nine in a second"),
        pytest.param("10/s", "864000/d", None, id="ten in each second of the day"),
        pytest.param("10/s", "863999/d", "10/s", id="ten in each second, one too few"),
        pytest.param("10/m", "14400/d", None, id="ten in each minute of the day"),
        pytest.param("10/m", "14399/d", "10/m", id="ten in each minute, one too few"),
    ],
)
def test_rate(rate, ceiling, beyond):
    found = excess(reach(rate=rate), reach(rate=ceiling))

    assert found == ({"rate_limit": (beyond,)} if beyond else {})


def test_every_field_that_is_too_much_is_named_at_once():
    wide = reach(
        scopes=["jobs:read", "jobs:write"],
        allowed_ips=["192.0.2.0/24", "10.0.0.0/8"],
        expires_at=LATER,
        rate="61/m",
    )
    narrow = reach(
        scopes=["jobs:read"], allowed_ips=["192.0.2.0/24"], expires_at=EARLIER, rate="60/m"
    )

    assert excess(wide, narrow) == {
        "scopes": ["jobs:write"],
        "allowed_ips": ["10.0.0.0/8"],
        "expires_at": ("2100-01-01T00:00:01+00:00",),
        "rate_limit": ("61/m",),
    }
    assert excess(narrow, wide) == {}


def test_no_bounds_at_all_are_beyond_each_bound():
    bounds = reach(allowed_ips=["192.0.2.7"], expires_at=EARLIER, rate="1/d")

    assert excess(reach(scopes=["*"]), bounds) == {
        "scopes": ["*"],
        "allowed_ips": ("everywhere",),
        "expires_at": ("never",),
        "rate_limit": ("unlimited",),
    }


def test_field_that_is_within_is_not_named():
    wide = reach(scopes=["jobs:read"], expires_at=LATER, rate="1/m")
    narrow = reach(scopes=["*"], expires_at=EARLIER, rate="1/m")

    assert excess(wide, narrow) == {"expires_at": ("2100-01-01T00:00:01+00:00",)}


def test_whether_a_key_is_enabled_is_no_excess():
    assert excess(reach(enabled=True), reach(enabled=False)) == {}


BOUND = {
    "scopes": ["jobs:read"],
    "allowed_ips": ["192.0.2.0/24"],
    "expires_at": EARLIER,
    "rate": "60/m",
}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param({}, False, id="same"),
        pytest.param({"scopes": []}, False, id="no scopes"),
        pytest.param({"scopes": ["jobs:write"]}, True, id="another scope"),
        pytest.param({"scopes": ["jobs:read", "jobs:write"]}, True, id="one more scope"),
        pytest.param({"scopes": ["jobs:*"]}, True, id="wildcard"),
        pytest.param({"allowed_ips": ["192.0.2.7"]}, False, id="narrower network"),
        pytest.param({"allowed_ips": []}, False, id="no network"),
        pytest.param({"allowed_ips": ["192.0.2.0/23"]}, True, id="wider network"),
        pytest.param({"allowed_ips": ["192.0.2.0/24", "::1"]}, True, id="one more network"),
        pytest.param({"allowed_ips": None}, True, id="everywhere"),
        pytest.param({"expires_at": EARLIER - timedelta(days=1)}, False, id="shorter"),
        pytest.param({"expires_at": LATER}, True, id="longer"),
        pytest.param({"expires_at": None}, True, id="for ever"),
        pytest.param({"rate": "1/m"}, False, id="slower"),
        pytest.param({"rate": "1/s"}, False, id="as much, more evenly"),
        pytest.param({"rate": "61/m"}, True, id="faster"),
        pytest.param({"rate": None}, True, id="as fast as one likes"),
        pytest.param({"enabled": False}, False, id="disabled"),
        pytest.param({"enabled": False, "scopes": ["*"]}, True, id="disabled, with more scopes"),
    ],
)
def test_change_widens(change, expected):
    assert widens(reach(**BOUND), reach(**{**BOUND, **change})) is expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param({"enabled": True}, True, id="enabled"),
        pytest.param({"enabled": True, "scopes": []}, True, id="enabled, with less"),
        pytest.param({"enabled": False}, False, id="same"),
        pytest.param({"enabled": False, "rate": "1/m"}, False, id="still disabled, with less"),
    ],
)
def test_change_of_a_disabled_key_widens(change, expected):
    before = reach(**BOUND, enabled=False)

    assert widens(before, reach(**{**BOUND, **change})) is expected


scopes = st.sampled_from(["*", "jobs:*", "jobs:read", "jobs:write", "customers:*", "self:rotate"])
networks = st.sampled_from(
    ["0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/9", "10.128.0.0/9", "10.1.2.3", "::/0", "rubbish"]
)
reaches = st.builds(
    Reach,
    scopes=st.frozensets(scopes),
    allowed_ips=st.none() | st.lists(networks, max_size=3),
    expires_at=st.none() | st.sampled_from([EARLIER, LATER]),
    rate=st.none()
    | st.builds(Rate, st.integers(1, 100_000), st.sampled_from([1, 60, 3600, 86_400])),
    enabled=st.booleans(),
)


@one_second
@given(reaches)
def test_every_reach_lies_within_itself(one):
    assert excess(one, one) == excess(one, one, REGISTRY) == {}
    assert widens(one, one) is False


@one_second
@given(reaches, reaches, reaches)
def test_what_lies_within_what_lies_within_lies_within(inner, middle, outer):
    """Field by field: a grandchild goes no further than its grandparent."""
    beyond_middle = set(excess(inner, middle)) | set(excess(middle, outer))

    assert set(excess(inner, outer)) <= beyond_middle
