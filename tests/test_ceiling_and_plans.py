"""The ceiling where a key has no rate of its own: then it has that of its plan."""

import pytest

from django_apikeys.authority import KeyAuthority
from django_apikeys.exceptions import BeyondCeiling
from django_apikeys.models import APIKey
from tests.limiting import grant


def authority(own, plan, **fields):
    """Return what a key with this rate, of an owner on a plan with that one, may do."""
    scopes = frozenset(["apikeys:write"])
    return KeyAuthority(grant(scopes=scopes, rate_limit=own, plan_rate=plan, **fields))


def key(rate):
    return APIKey(name="another", environment="live", owner_id=7, rate_limit=rate)


WITHIN = [
    pytest.param(None, None, "", id="none of any"),
    pytest.param(None, None, "999/s", id="none, own of the other"),
    pytest.param(None, "60/m", "", id="both the plan's"),
    pytest.param(None, "60/m", "60/m", id="the plan's, as much"),
    pytest.param(None, "60/m", "30/m", id="the plan's, less"),
    pytest.param("60/m", "60/m", "", id="own, as much as the plan's of the other"),
    pytest.param("300/m", "60/m", "", id="own, more than the plan's of the other"),
    pytest.param("60/m", None, "60/m", id="both own"),
    pytest.param(None, "rubbish", "999/s", id="a plan's that cannot be read"),
    pytest.param("rubbish", "60/m", "60/m", id="own that cannot be read"),
]
BEYOND = [
    pytest.param(None, "60/m", "61/m", "61/m", id="more than the plan's"),
    pytest.param(None, "60/m", "2/s", "2/s", id="more than the plan's, by another unit"),
    pytest.param("60/m", "300/m", "", "300/m", id="the plan's of the other is more than own"),
    pytest.param("60/m", None, "", "unlimited", id="no rate at all of the other"),
    pytest.param("60/m", "300/m", "100/m", "100/m", id="own of the other is more than own"),
    pytest.param("rubbish", "60/m", "61/m", "61/m", id="more than the plan's, own unreadable"),
]


@pytest.mark.parametrize(("own", "plan", "rate"), WITHIN)
def test_a_key_may_make_one_within(own, plan, rate):
    authority(own, plan).check("create", None, key(rate))


@pytest.mark.parametrize(("own", "plan", "rate", "named"), BEYOND)
def test_a_key_may_make_none_beyond(own, plan, rate, named):
    with pytest.raises(BeyondCeiling) as refused:
        authority(own, plan).check("create", None, key(rate))

    assert refused.value.beyond == {"rate_limit": (named,)}


def test_a_key_may_not_change_one_that_is_beyond():
    with pytest.raises(BeyondCeiling):
        authority(None, "60/m").check("change", key("300/m"), key("30/m"))


@pytest.mark.parametrize(("rate", "is_within"), [("60/m", True), ("61/m", False)])
def test_the_plan_holds_after_the_key_was_read_again(issue, rate, is_within):
    """Under the lock, where its own rate has gone."""
    issued = issue(scopes=["apikeys:write"])
    again = authority("30/m", "60/m", public_id=issued.secret.split("_")[2])
    again.confirm(issued.key)

    if is_within:
        again.check("create", None, key(rate))
    else:
        with pytest.raises(BeyondCeiling):
            again.check("create", None, key(rate))
