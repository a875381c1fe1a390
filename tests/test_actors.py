"""Who changes a key."""

from django_apikeys.actors import Actor


class Numbered:
    """A user whose USERNAME_FIELD is a number."""

    pk = 7

    def get_username(self):
        return 4711


def test_name_of_a_user_is_text():
    actor = Actor.of(Numbered())

    assert (actor.kind, actor.id, actor.name) == ("user", "7", "4711")


def test_actor_is_itself():
    actor = Actor("command", name="import")

    assert Actor.of(actor) is actor


def test_nobody_is_the_system():
    assert Actor.of(None) == Actor("system")
