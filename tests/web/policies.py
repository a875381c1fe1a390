"""Who may do what, otherwise than by default."""

from django_apikeys.policy import UserPolicy


class ReadingPolicy(UserPolicy):
    """Everyone may grant ``customers:read`` and ``jobs:…``, and nothing else."""

    def grantable_scopes(self, person, owner):
        return ["customers:read", "jobs:*"]


class ManyPolicy(UserPolicy):
    """Everyone may do everything for every user, and see all of them but ``hidden``."""

    def owners(self, person, action):
        users = super().owners(person, action).model._default_manager
        return users.exclude(username="hidden").order_by("pk")


class SeeingPolicy(ManyPolicy):
    """Everyone sees every user's keys; each makes their own."""

    def owners(self, person, action):
        return (
            UserPolicy().owners(person, action)
            if action != "see"
            else super().owners(person, action)
        )


class OneOfTwo(ManyPolicy):
    """Everyone may grant one scope to themself, and another to others."""

    def grantable_scopes(self, person, owner):
        return ["customers:read"] if owner.pk == person.pk else ["jobs:read"]


class NoRevokingPolicy(UserPolicy):
    """Everyone may do everything with their keys but end them."""

    def owners(self, person, action):
        found = super().owners(person, action)
        return found.none() if action == "revoke" else found


class OwnEndsPolicy(ManyPolicy):
    """Everyone may do everything with all keys, and revoke their own alone."""

    def owners(self, person, action):
        own = action == "revoke"
        return UserPolicy().owners(person, action) if own else super().owners(person, action)


class LookingPolicy(UserPolicy):
    """Everyone may look at their keys, and do nothing with them."""

    def owners(self, person, action):
        found = super().owners(person, action)
        return found if action == "see" else found.none()


class FreePolicy(ManyPolicy):
    """Everyone is on the free plan."""

    def owners(self, person, action):
        return super().owners(person, action).filter(pk=person.pk)

    def plan(self, owner):
        return "free"


def use(settings, policy):
    settings.APIKEYS_POLICY = f"{policy.__module__}.{policy.__qualname__}"
