"""The story of a key: made, used, refused where it should be, rotated, revoked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from django_apikeys.keys.format import CRC_LENGTH, RANDOM_LENGTH, TAIL_LENGTH, checksum
from example_project.crm.demo.client import Client, basic, bearer, expect
from example_project.crm.demo.data import PASSWORD

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from example_project.crm.demo.server import Server

KEYS = "/api/v1/keys/"
CUSTOMERS = "/api/v1/customers/"
JOBS = "/api/v1/jobs/"
OWNER = basic("owner", PASSWORD)
MEMBER = basic("member", PASSWORD)
RIVAL = basic("rival", PASSWORD)


@dataclass
class World:
    """What the steps share: the site, what the demo says of it, and the key of the story."""

    client: Client
    server: Server
    facts: dict[str, Any]
    key: dict[str, Any] = field(default_factory=dict)

    @property
    def secret(self) -> str:
        return str(self.key["secret"])

    @property
    def key_url(self) -> str:
        return f"{KEYS}{self.key['id']}/"

    @property
    def acme_id(self) -> int:
        return int(self.facts["organisations"][0]["id"])


if TYPE_CHECKING:
    Step = tuple[str, Callable[[World], None]]

STEPS: list[Step] = []


def step(sentence: str) -> Callable[[Callable[[World], None]], Callable[[World], None]]:
    """Make a function the next step of the story."""

    def add(function: Callable[[World], None]) -> Callable[[World], None]:
        STEPS.append((sentence, function))
        return function

    return add


def play(steps: Sequence[Step], world: World, say: Callable[[str], None]) -> bool:
    """Tell whether every step passed. The first that fails is the last: others need it."""
    for number, (sentence, function) in enumerate(steps, start=1):
        try:
            function(world)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong, the step has failed
            say(f"✗ {sentence}")
            say(f"  {type(error).__name__}: {error}")
            say(f"{number - 1} of {len(steps)} steps passed.")
            return False
        say(f"✓ {sentence}")
    say(f"All {len(steps)} steps passed.")
    return True


@step("The server answers")
def _(world: World) -> None:
    world.client.call("GET", "/").expect(200)


@step("The owner makes a key over REST: 201, its secret this once, not to be stored")
def _(world: World) -> None:
    wanted = {"name": "Nightly import", "scopes": ["customers:read", "customers:write"]}

    answer = world.client.call("POST", KEYS, OWNER, wanted).expect(201)

    world.key = answer.data
    again = world.client.call("GET", world.key_url, OWNER).expect(200)
    expect(that=world.secret.startswith("rak_live_"), otherwise="This is no secret.")
    expect(that="secret" not in again.data, otherwise="The secret was shown again.")
    expect(
        that=answer.headers["Cache-Control"] == "no-store",
        otherwise=f"Cache-Control is {answer.headers['Cache-Control']}, not no-store.",
    )


@step("A program calls with it in each of the four ways, and sees the rows of Acme alone")
def _(world: World) -> None:
    ways = (
        bearer(world.secret),
        {"Authorization": f"Api-Key {world.secret}"},
        {"X-API-Key": world.secret},
        basic(world.facts["basic_username"], world.secret),
    )
    for headers in ways:
        answer = world.client.call("GET", f"{CUSTOMERS}?limit=100", headers).expect(200)
        owners = {row["organisation"] for row in answer.data}
        total = answer.body["meta"]["total"]
        expect(that=owners == {world.acme_id}, otherwise=f"The rows belong to {owners}.")
        expect(that=total == len(answer.data), otherwise=f"{total} are {len(answer.data)}.")


@step("It creates a customer: 201, of its own organisation")
def _(world: World) -> None:
    wanted = {"name": "Ada Lovelace"}

    answer = world.client.call("POST", CUSTOMERS, bearer(world.secret), wanted).expect(201)

    expect(that=answer.data["organisation"] == world.acme_id, otherwise=answer.text)


@step("Jobs are not in its scopes: 403, and the challenge names the one it lacks")
def _(world: World) -> None:
    answer = world.client.call("GET", JOBS, bearer(world.secret)).expect(403, "insufficient_scope")

    challenge = answer.headers["WWW-Authenticate"]
    expect(that='scope="jobs:read"' in challenge, otherwise=f"It says: {challenge}")


@step("Nobody is 401, and so are a typing error and the right id with a wrong secret")
def _(world: World) -> None:
    calls = world.client.call
    calls("GET", CUSTOMERS).expect(401, "not_authenticated")
    calls("GET", CUSTOMERS, bearer(_mistyped(world.secret))).expect(401, "invalid_key")
    calls("GET", CUSTOMERS, bearer(_forged(world.secret))).expect(401, "invalid_key")


@step("Two credentials at once are 400")
def _(world: World) -> None:
    both = {**bearer(world.secret), "X-API-Key": world.secret}
    world.client.call("GET", CUSTOMERS, both).expect(400, "invalid_request")


@step("For the owner of another organisation there is no such key: 404")
def _(world: World) -> None:
    world.client.call("GET", world.key_url, RIVAL).expect(404, "not_found")


@step("A member may look at keys, and not make one: 403")
def _(world: World) -> None:
    world.client.call("GET", world.key_url, MEMBER).expect(200)
    world.client.call("POST", KEYS, MEMBER, {"name": "Mine"}).expect(403, "permission_denied")


@step("The list shows the key by its masked form, and no secret")
def _(world: World) -> None:
    answer = world.client.call("GET", KEYS, OWNER).expect(200)

    shown = {row["id"]: row["masked"] for row in answer.data}
    last_four = world.secret[-CRC_LENGTH - 4 : -CRC_LENGTH]
    masked = f"rak_live_{world.key['public_id'][:4]}…{last_four}"
    expect(that=shown.get(world.key["id"]) == masked, otherwise=f"It shows {shown}.")
    expect(that=world.secret not in answer.text, otherwise="The list shows the secret.")


@step("Disabled, it is 401; enabled again, it works")
def _(world: World) -> None:
    world.client.call("PATCH", world.key_url, OWNER, {"enabled": False}).expect(200)
    world.client.call("GET", CUSTOMERS, bearer(world.secret)).expect(401, "disabled_key")
    world.client.call("PATCH", world.key_url, OWNER, {"enabled": True}).expect(200)
    world.client.call("GET", CUSTOMERS, bearer(world.secret)).expect(200)


@step("Rotated, both secrets work, and the old one is told so; retired, it is 401")
def _(world: World) -> None:
    old = world.secret
    world.key = world.client.call("POST", f"{world.key_url}rotate/", OWNER).expect(201).data
    world.client.call("GET", CUSTOMERS, bearer(world.secret)).expect(200)
    answer = world.client.call("GET", CUSTOMERS, bearer(old)).expect(200)
    told = answer.headers["X-API-Key-Rotated"]
    expect(that=told == "true", otherwise=f"X-API-Key-Rotated is {told}.")
    world.client.call("POST", f"{world.key_url}retire/", OWNER).expect(200)
    world.client.call("GET", CUSTOMERS, bearer(old)).expect(401, "retired_secret")


@step("Revoked, the very next call is 401")
def _(world: World) -> None:
    reason = {"reason": "The story is told."}
    world.client.call("POST", f"{world.key_url}revoke/", OWNER, reason).expect(200)
    world.client.call("GET", CUSTOMERS, bearer(world.secret)).expect(401, "revoked_key")


@step("The command line makes a key, shows and lists it; it works until it is revoked there")
def _(world: World) -> None:
    manage, call = world.server.manage, world.client.call
    wanted = ("--owner", "acme", "--name", "Shell", "--scope", "customers:read")
    key = manage("apikeys", "create", *wanted, "--json")

    shown = manage("apikeys", "show", key["id"], "--json")
    listed = manage("apikeys", "list", "--owner", "acme", "--json")
    expect(that=shown["masked"] == key["masked"], otherwise=f"It shows {shown}.")
    expect(that=key["id"] in {row["id"] for row in listed}, otherwise="It is not in the list.")
    call("GET", CUSTOMERS, bearer(key["secret"])).expect(200)

    revoked = manage("apikeys", "revoke", key["id"], "--reason", "Enough", "--json")
    expect(that=revoked["status"] == "revoked", otherwise=f"It is {revoked['status']}.")
    call("GET", CUSTOMERS, bearer(key["secret"])).expect(401, "revoked_key")


def _mistyped(secret: str) -> str:
    """Return *secret* with its last character wrong, which the checksum finds."""
    return secret[:-1] + ("0" if secret[-1] != "0" else "1")


def _forged(secret: str) -> str:
    """Return another secret with the same public id, and a checksum that is right."""
    body = secret[:-TAIL_LENGTH] + "0" * RANDOM_LENGTH
    return body + checksum(body)
