"""What a host can listen to; docs/signals.md says the same.

Those of a change are sent after its transaction has committed, ``key_refused`` at
once, in the request that is refused, the two that follow it by the flush that finds it out,
and ``key_notice`` by ``apikeys notify``.
All are sent with ``sender=APIKey``, by ``send_robust``: a receiver that raises is logged
by Django and breaks nothing.

========================= =========================================================
key_created               ``key``, ``actor``
key_updated               ``key``, ``actor``, ``changes`` ({field: [before, after]})
key_rotated               ``key``, ``actor``, ``reason``, ``compromised``, ``by_itself``: the
                          key did it, with its scope ``self:rotate``
secret_retired            ``key``, ``actor``, ``reason``: its previous secret was ended
key_revealed              ``key``, ``actor``: its secret was shown again
key_revoked               ``key``, ``actor``, ``reason``
key_deleted               ``key``, ``actor``, ``reason``
retired_secret_used       ``key``, ``public_id``, ``address`` (text): at most once in an hour
                          for each secret
key_refused               ``code``, ``public_id`` (None for an unknown one),
                          ``address`` (None where it cannot be read)
key_used_from_new_address ``key``, ``address`` (text), ``at``: of a key that was used
                          from others before
quota_reached             ``owner_id`` (text), ``month`` (its first day), ``percent`` (80
                          or 100), ``units``, ``quota``
key_notice                ``key``, ``kind`` (``expires_in_30``, ``expires_in_7``,
                          ``expires_in_1``, ``expired``, ``unused``, ``rotation_due``),
                          ``about`` (text): the three name the notice, which may be sent
                          again where a run failed
========================= =========================================================

A key that is deleted is revoked as well; ``key_deleted`` alone tells of it.

``key`` is the APIKey as it is after the change, ``actor`` an ``actors.Actor``. No
signal carries a secret.
"""

from __future__ import annotations

from typing import Any

from django.dispatch import Signal

key_created = Signal()
key_updated = Signal()
key_rotated = Signal()
secret_retired = Signal()
key_revealed = Signal()
key_revoked = Signal()
key_deleted = Signal()
key_refused = Signal()
retired_secret_used = Signal()
key_used_from_new_address = Signal()
quota_reached = Signal()
key_notice = Signal()


def send(signal: Signal, **facts: Any) -> None:
    """Send *signal*; Django logs a receiver that raises."""
    from django_apikeys.models import APIKey  # noqa: PLC0415 - models need the apps to be loaded

    signal.send_robust(sender=APIKey, **facts)
