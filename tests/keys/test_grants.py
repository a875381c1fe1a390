from dataclasses import FrozenInstanceError, dataclass, field, replace
from uuid import UUID

import pytest

from django_apikeys.keys.grants import Grant

GRANT = Grant(
    key_id=UUID("00000000-0000-0000-0000-000000000001"),
    public_id="7Fq2Lm9XcT0a",
    name="reports",
    environment="live",
    scopes=frozenset({"jobs:write", "customers:*"}),
    owner_id=7,
    plan="pro",
    masked="rak_live_7Fq2…WtB2",
)


@dataclass
class CountingLoader:
    """Answers with names and keeps what it was asked for."""

    asked: list[tuple[str, int]] = field(default_factory=list)

    def owner(self, grant):
        self.asked.append(("owner", grant.owner_id))
        return "the owner"

    def key(self, grant):
        self.asked.append(("key", grant.owner_id))
        return "the key"


@pytest.mark.parametrize(
    ("required", "expected"),
    [
        pytest.param((), True, id="nothing"),
        pytest.param(("jobs:write",), True, id="granted"),
        pytest.param(("customers:read",), True, id="by wildcard"),
        pytest.param(("jobs:write", "customers:read"), True, id="both"),
        pytest.param(("jobs:read",), False, id="write is not read"),
        pytest.param(("jobs:write", "jobs:read"), False, id="one of two"),
        pytest.param(("apikeys:read",), False, id="reserved"),
    ],
)
def test_has_scope(required, expected):
    assert GRANT.has_scope(*required) is expected


def test_has_scope_follows_what_is_implied():
    grant = replace(GRANT, implied_scopes={"write": ["read"]})

    assert grant.has_scope("jobs:read")


def test_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        GRANT.scopes = frozenset({"*"})  # type: ignore[misc]


def test_grants_of_equal_facts_are_equal_whatever_loads_their_rows():
    other = replace(GRANT, loader=CountingLoader(), implied_scopes={"write": ["read"]})

    assert other == GRANT
    assert hash(other) == hash(GRANT)


def test_repr_names_the_key():
    assert "name='reports'" in repr(GRANT)


class TestRows:
    def test_are_none_without_a_loader(self):
        assert GRANT.owner is None
        assert GRANT.key is None

    def test_are_not_loaded_before_they_are_touched(self):
        loader = CountingLoader()

        grant = replace(GRANT, loader=loader)
        repr(grant)
        grant.has_scope("jobs:write")

        assert loader.asked == []

    def test_are_loaded_once_each(self):
        loader = CountingLoader()
        grant = replace(GRANT, loader=loader)

        rows = [grant.owner, grant.key, grant.owner, grant.key]

        assert rows == ["the owner", "the key", "the owner", "the key"]
        assert loader.asked == [("owner", 7), ("key", 7)]
