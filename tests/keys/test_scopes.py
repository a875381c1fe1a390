import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_apikeys.keys.scopes import (
    RESERVED,
    beyond,
    covers,
    is_known,
    is_reserved,
    is_scope,
    manages_keys,
    read_stored,
    with_implied,
)

REGISTRY = {
    "customers:read": "Read customers",
    "customers:write": "Change customers",
    "jobs:read": "Read jobs",
    "jobs:write": "Change jobs",
    **RESERVED,
}
LONGEST = "a" * 63
one_second = settings(max_examples=120, deadline=None)

# Few words, so that what is drawn meets.
scopes = st.builds(
    "{}:{}".format,
    st.sampled_from(["customers", "jobs", "apikeys", "self", "apikeys2"]),
    st.sampled_from(["read", "write", "rotate"]),
)
wildcards = st.sampled_from(["*", "customers:*", "jobs:*", "apikeys:*", "self:*"])
granted_scopes = st.frozensets(scopes | wildcards)
implications = st.dictionaries(
    scopes | wildcards | st.sampled_from(["read", "write"]),
    st.lists(scopes | wildcards | st.sampled_from(["read", "write"]), max_size=3),
    max_size=4,
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | scopes | wildcards,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("jobs:read", True, id="scope"),
        pytest.param("a:b", True, id="one character each"),
        pytest.param("Price-Book_2.0:read.all", True, id="every kind of character"),
        pytest.param("2fa:read", True, id="digit first"),
        pytest.param(f"{LONGEST}:{LONGEST}", True, id="longest"),
        pytest.param(f"{LONGEST}a:read", False, id="resource too long"),
        pytest.param(f"jobs:{LONGEST}a", False, id="action too long"),
        pytest.param("jobs", False, id="no action"),
        pytest.param("jobs:", False, id="empty action"),
        pytest.param(":read", False, id="empty resource"),
        pytest.param(":", False, id="colon"),
        pytest.param("", False, id="empty"),
        pytest.param("jobs:read:all", False, id="three parts"),
        pytest.param("jobs:*", False, id="resource wildcard"),
        pytest.param("*", False, id="wildcard"),
        pytest.param("*:read", False, id="wildcard resource"),
        pytest.param("jobs:re*", False, id="wildcard within"),
        pytest.param("-jobs:read", False, id="dash first"),
        pytest.param("jobs read", False, id="space"),
        pytest.param(" jobs:read", False, id="leading space"),
        pytest.param("jobs:read\n", False, id="trailing line break"),
        pytest.param("jobs:read\x00", False, id="NUL"),
        pytest.param('jobs:"read"', False, id="quotes, which end a challenge"),
        pytest.param("jöbs:read", False, id="not ASCII"),
        pytest.param(None, False, id="none"),
        pytest.param(1, False, id="number"),
        pytest.param(["jobs:read"], False, id="list"),
    ],
)
def test_is_scope(text, expected):
    assert is_scope(text) is expected


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        pytest.param("apikeys:read", True, id="apikeys:read"),
        pytest.param("apikeys:write", True, id="apikeys:write"),
        pytest.param("self:rotate", True, id="self:rotate"),
        pytest.param("self:revoke", True, id="self:revoke"),
        pytest.param("apikeys:other", True, id="unregistered, of the same resource"),
        pytest.param("self:*", True, id="wildcard"),
        pytest.param("apikeys", True, id="resource alone"),
        pytest.param("selfish:read", False, id="resource that begins alike"),
        pytest.param("jobs:read", False, id="other"),
        pytest.param("*", False, id="star"),
    ],
)
def test_is_reserved(scope, expected):
    assert is_reserved(scope) is expected


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        pytest.param("apikeys:read", True, id="apikeys:read"),
        pytest.param("apikeys:write", True, id="apikeys:write"),
        pytest.param("apikeys:other", True, id="unregistered, of the same resource"),
        pytest.param("apikeys:*", True, id="wildcard stored by hand"),
        pytest.param("apikeys", True, id="resource alone"),
        pytest.param("self:rotate", False, id="self:rotate"),
        pytest.param("self:revoke", False, id="self:revoke"),
        pytest.param("apikeys2:read", False, id="resource that begins alike"),
        pytest.param("Apikeys:read", False, id="other case"),
        pytest.param("jobs:apikeys", False, id="action"),
        pytest.param("*", False, id="star"),
        pytest.param("", False, id="empty"),
    ],
)
def test_manages_keys(scope, expected):
    assert manages_keys(scope) is expected


def test_the_reserved_scopes_are_those_of_the_contract():
    assert list(RESERVED) == ["apikeys:read", "apikeys:write", "self:rotate", "self:revoke"]


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        pytest.param("jobs:read", True, id="registered"),
        pytest.param("jobs:*", True, id="wildcard over registered"),
        pytest.param("*", True, id="star"),
        pytest.param("apikeys:read", True, id="reserved"),
        pytest.param("self:rotate", True, id="reserved of itself"),
        pytest.param("jobs:delete", False, id="unknown action"),
        pytest.param("invoices:read", False, id="unknown resource"),
        pytest.param("invoices:*", False, id="wildcard over nothing"),
        pytest.param("apikeys:*", False, id="apikeys wildcard"),
        pytest.param("self:*", False, id="self wildcard"),
        pytest.param("apikeys:delete", False, id="unknown reserved"),
        pytest.param("Jobs:read", False, id="other case"),
        pytest.param("jobs", False, id="resource alone"),
        pytest.param("job:*", False, id="resource in part"),
        pytest.param("jobs:**", False, id="two stars"),
        pytest.param("**", False, id="two stars alone"),
        pytest.param("*:*", False, id="star of star"),
        pytest.param("*:read", False, id="star of an action"),
        pytest.param(":*", False, id="no resource"),
        pytest.param("", False, id="empty"),
    ],
)
def test_is_known(scope, expected):
    assert is_known(scope, REGISTRY) is expected


def test_reserved_scopes_are_known_to_an_empty_registry():
    assert all(is_known(scope, {}) for scope in RESERVED)


class TestReadStored:
    @pytest.mark.parametrize(
        ("stored", "expected"),
        [
            pytest.param([], set(), id="none"),
            pytest.param(["jobs:read"], {"jobs:read"}, id="scope"),
            pytest.param(["jobs:*", "*"], {"jobs:*", "*"}, id="wildcards"),
            pytest.param(["jobs:read", "jobs:read"], {"jobs:read"}, id="twice"),
            pytest.param(["invoices:read"], {"invoices:read"}, id="not registered any more"),
            pytest.param("*", set(), id="text"),
            pytest.param("jobs:read", set(), id="text of a scope"),
            pytest.param({"*": True}, set(), id="object"),
            pytest.param(None, set(), id="null"),
            pytest.param(True, set(), id="true"),
            pytest.param(1, set(), id="number"),
            pytest.param([1, None, True, 1.5], set(), id="list of no texts"),
            pytest.param([["*"], {"*": 1}], set(), id="nested"),
            pytest.param(
                ["", " ", "*:*", "**", "jobs", "jobs:r*", "jobs:**"], set(), id="rubbish"
            ),
            pytest.param(["* ", "*\n", "jobs:*\n"], set(), id="white space"),
            pytest.param(["jobs:read", 1, "x"], {"jobs:read"}, id="rubbish beside"),
        ],
    )
    def test_value(self, stored, expected):
        assert read_stored(stored) == expected

    @one_second
    @given(json_values)
    def test_grants_what_is_well_formed_and_raises_on_nothing(self, stored):
        for scope in read_stored(stored):
            resource, _, action = scope.partition(":")
            assert scope in stored
            assert scope == "*" or is_scope(scope) or (is_scope(f"{resource}:a") and action == "*")

    @one_second
    @given(json_values)
    def test_no_value_covers_a_reserved_scope_but_by_its_name(self, stored):
        granted = read_stored(stored)

        assert all(covers(granted, [scope]) is (scope in granted) for scope in RESERVED)


class TestCovers:
    @pytest.mark.parametrize(
        ("granted", "required", "expected"),
        [
            pytest.param([], [], True, id="nothing asked"),
            pytest.param([], ["jobs:read"], False, id="a key without scopes"),
            pytest.param(["jobs:read"], ["jobs:read"], True, id="the same"),
            pytest.param(["jobs:read"], ["jobs:write"], False, id="read is not write"),
            pytest.param(["jobs:write"], ["jobs:read"], False, id="write is not read"),
            pytest.param(["jobs:read"], ["jobs:read", "jobs:write"], False, id="one of two"),
            pytest.param(["jobs:read", "jobs:write"], ["jobs:read", "jobs:write"], True, id="all"),
            pytest.param(["jobs:read"], ["Jobs:read"], False, id="other case"),
            pytest.param(["jobs:*"], ["jobs:read"], True, id="resource wildcard"),
            pytest.param(["jobs:*"], ["customers:read"], False, id="wildcard of another resource"),
            pytest.param(["job:*"], ["jobs:read"], False, id="resource in part"),
            pytest.param(["*"], ["jobs:read"], True, id="star"),
            pytest.param(["*"], ["apikeys:read"], False, id="star, apikeys:read"),
            pytest.param(["*"], ["apikeys:write"], False, id="star, apikeys:write"),
            pytest.param(["*"], ["self:rotate"], False, id="star, self:rotate"),
            pytest.param(["*"], ["self:revoke"], False, id="star, self:revoke"),
            pytest.param(["apikeys:*"], ["apikeys:read"], False, id="apikeys:* stored by hand"),
            pytest.param(["self:*"], ["self:rotate"], False, id="self:* stored by hand"),
            pytest.param(["apikeys:read"], ["apikeys:read"], True, id="reserved by name"),
            pytest.param(["apikeys:write"], ["apikeys:read"], False, id="reserved write, read"),
            pytest.param(["*", "self:rotate"], ["self:rotate", "a:b"], True, id="star and name"),
        ],
    )
    def test_without_implied(self, granted, required, expected):
        assert covers(granted, required) is expected

    @pytest.mark.parametrize(
        ("granted", "required", "implied", "expected"),
        [
            pytest.param("a:write", "a:read", {"a:write": ["a:read"]}, True, id="direct"),
            pytest.param("a:read", "a:write", {"a:write": ["a:read"]}, False, id="not backwards"),
            pytest.param("b:write", "b:read", {"a:write": ["a:read"]}, False, id="other resource"),
            pytest.param(
                "a:write", "b:read", {"a:write": ["b:read"]}, True, id="across resources"
            ),
            pytest.param("a:write", "a:read", {"write": ["read"]}, True, id="by action"),
            pytest.param("b:write", "b:read", {"write": ["read"]}, True, id="by action, any"),
            pytest.param("a:write", "b:read", {"write": ["read"]}, False, id="by action, its own"),
            pytest.param("a:x", "a:z", {"a:x": ["a:y"], "a:y": ["a:z"]}, True, id="transitive"),
            pytest.param("a:x", "a:z", {"x": ["y"], "y": ["z"]}, True, id="transitive by action"),
            pytest.param("a:x", "a:z", {"a:x": ["a:y"], "y": ["z"]}, True, id="transitive, mixed"),
            pytest.param("a:x", "a:y", {"x": ["y"], "y": ["x"]}, True, id="cyclic"),
            pytest.param("a:x", "a:z", {"x": ["y"], "y": ["x"]}, False, id="cyclic, no further"),
            pytest.param("a:x", "a:y", {"a:x": ["a:x"]}, False, id="of itself"),
            pytest.param("a:admin", "a:b", {"a:admin": ["a:*"]}, True, id="a wildcard"),
            pytest.param("a:*", "b:y", {"a:x": ["b:y"]}, True, id="of what a wildcard covers"),
            pytest.param("*", "b:y", {"a:x": ["b:y"]}, True, id="of what a star covers"),
            pytest.param(
                "apikeys:write",
                "apikeys:read",
                {"write": ["read"]},
                False,
                id="reserved by action",
            ),
            pytest.param(
                "apikeys:write",
                "apikeys:read",
                {"apikeys:write": ["apikeys:read"]},
                True,
                id="reserved by name",
            ),
            pytest.param("a:x", "apikeys:read", {"a:x": ["*"]}, False, id="reserved by a star"),
            pytest.param("*", "apikeys:read", {"write": ["read"]}, False, id="reserved of a star"),
        ],
    )
    def test_with_implied(self, granted, required, implied, expected):
        assert covers([granted], [required], implied) is expected

    @one_second
    @given(granted_scopes, granted_scopes, st.lists(scopes), implications)
    def test_more_granted_never_covers_less(self, granted, more, required, implied):
        assert covers(granted | more, required, implied) >= covers(granted, required, implied)

    @one_second
    @given(granted_scopes, st.lists(scopes), scopes, implications)
    def test_more_required_is_never_covered_more(self, granted, required, one_more, implied):
        assert covers(granted, [*required, one_more], implied) <= covers(
            granted, required, implied
        )

    @one_second
    @given(st.from_regex(r"[a-z]{1,8}:[a-z]{1,8}", fullmatch=True))
    def test_a_star_covers_every_scope_that_is_not_reserved(self, scope):
        assert covers(["*"], [scope]) is not is_reserved(scope)

    @one_second
    @given(granted_scopes, scopes)
    def test_a_reserved_scope_is_covered_by_its_name_alone(self, granted, scope):
        assert covers(granted, [scope]) >= (scope in granted)
        assert covers(granted, [scope]) <= (scope in granted or not is_reserved(scope))


class TestWithImplied:
    def test_is_what_was_granted_and_all_that_it_brings_along(self):
        implied = {"jobs:write": ["jobs:read", "customers:read"], "write": ["list"]}

        assert with_implied(["jobs:write"], implied) == {
            "jobs:write",
            "jobs:read",
            "jobs:list",
            "customers:read",
        }

    @one_second
    @given(granted_scopes, implications)
    def test_a_second_time_adds_nothing(self, granted, implied):
        once = with_implied(granted, implied)

        assert once >= granted
        assert with_implied(once, implied) == once


@pytest.mark.parametrize(
    ("scopes", "grantable", "expected"),
    [
        pytest.param([], [], [], id="nothing"),
        pytest.param(["jobs:read"], ["jobs:read"], [], id="within"),
        pytest.param(["jobs:read"], [], ["jobs:read"], id="beyond"),
        pytest.param(
            ["jobs:write", "jobs:read", "customers:read"],
            ["jobs:read"],
            ["jobs:write", "customers:read"],
            id="those beyond, in their order",
        ),
        pytest.param(["jobs:*"], ["jobs:read", "jobs:write"], [], id="wildcard within"),
        pytest.param(["jobs:*"], ["jobs:read"], ["jobs:*"], id="wildcard beyond"),
        pytest.param(
            ["*"],
            ["jobs:read", "jobs:write", "customers:read", "customers:write"],
            [],
            id="star within: it does not reach reserved scopes",
        ),
        pytest.param(["*"], ["jobs:read", "jobs:write"], ["*"], id="star beyond"),
        pytest.param(["apikeys:read"], ["jobs:read"], ["apikeys:read"], id="reserved beyond"),
        pytest.param(["apikeys:read"], REGISTRY, [], id="reserved within"),
    ],
)
def test_beyond(scopes, grantable, expected):
    assert beyond(scopes, grantable, REGISTRY) == expected


EVERY_SCOPE = ["customers:read", "customers:write", "jobs:read", "jobs:write"]


@pytest.mark.parametrize(
    ("scopes", "grantable", "expected"),
    [
        pytest.param([], [], [], id="nothing"),
        pytest.param(["jobs:read"], ["jobs:read"], [], id="within"),
        pytest.param(["jobs:read"], ["jobs:*"], [], id="of a wildcard"),
        pytest.param(["jobs:read"], ["*"], [], id="of a star"),
        pytest.param(["jobs:*"], ["jobs:*"], [], id="wildcard of a wildcard"),
        pytest.param(["jobs:*"], ["*"], [], id="wildcard of a star"),
        pytest.param(["*"], ["*"], [], id="star of a star"),
        pytest.param(["jobs:*"], ["jobs:read", "jobs:write"], ["jobs:*"], id="wildcard of all"),
        pytest.param(["*"], EVERY_SCOPE, ["*"], id="star of all there are"),
        pytest.param(["*"], ["jobs:*", "customers:*"], ["*"], id="star of all wildcards"),
        pytest.param(["old:*"], [], ["old:*"], id="wildcard over nothing"),
        pytest.param(["self:revoke"], ["*", "self:*"], ["self:revoke"], id="reserved"),
        pytest.param(["self:revoke"], ["self:revoke"], [], id="reserved by its name"),
    ],
)
def test_beyond_without_a_registry_a_wildcard_needs_one_as_wide(scopes, grantable, expected):
    assert beyond(scopes, grantable) == expected


@pytest.mark.parametrize(
    ("scopes", "grantable", "expected"),
    [
        pytest.param(["jobs:read", "jobs:*"], ["jobs:*"], [], id="of its resource"),
        pytest.param(["customers:read"], ["jobs:*"], ["customers:read"], id="of another"),
        pytest.param(["*"], ["jobs:*"], ["*"], id="star of one of two resources"),
        pytest.param(["*"], ["jobs:*", "customers:*"], [], id="star of both resources"),
        pytest.param(["*"], ["jobs:*", "customers:read"], ["*"], id="star of one and a part"),
        pytest.param(["*", "jobs:*", "jobs:read"], ["*"], [], id="all of a star"),
        pytest.param(["apikeys:read"], ["*"], ["apikeys:read"], id="reserved of a star"),
        pytest.param(["self:rotate"], ["self:*"], ["self:rotate"], id="reserved of a wildcard"),
    ],
)
def test_beyond_where_wildcards_may_be_granted(scopes, grantable, expected):
    assert beyond(scopes, grantable, REGISTRY) == expected


@one_second
@given(st.lists(scopes | wildcards), granted_scopes)
def test_what_is_not_beyond_covers_no_more_than_what_may_be_granted(asked, grantable):
    within = [scope for scope in asked if scope not in beyond(asked, grantable)]

    assert all(covers(grantable, [known]) for known in REGISTRY if covers(within, [known]))


@one_second
@given(granted_scopes)
def test_nothing_is_beyond_itself(granted):
    assert beyond(granted, granted) == beyond(granted, granted, REGISTRY) == []
