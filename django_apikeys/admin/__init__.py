"""The admin: keys are looked after, events are read.

``keys`` and ``events`` are the two lists, ``filters`` and ``tables`` what both have,
``confirmed`` what is done to keys once somebody has confirmed it, ``rotation`` what is
done to their secrets, ``revealing`` the one that is shown again, ``used`` what the owner's
page draws too.
"""

from django_apikeys.admin.events import APIKeyEventAdmin
from django_apikeys.admin.keys import APIKeyAdmin

__all__ = ["APIKeyAdmin", "APIKeyEventAdmin"]
