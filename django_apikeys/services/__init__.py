"""THE DOOR FOR CHANGE: every row of a key is written here.

Each change is one transaction with one Event, and one signal once it has committed;
what verification notes of a secret (its first use, a new digest), and what commands do to
the texts that are kept, changes nothing for anybody who calls, and has none.

actor: an Actor, a user, a Grant, or None for the system itself.
authority: what the one who asks may do; the ceiling is asked here, of the rows as they
are under the lock. None, for commands and the host's own code, asks nothing. Whether the
owner's keys may be managed at all is asked by whoever calls, before they read any input.
"""

from __future__ import annotations

from django_apikeys.services.bulk import RevokedKeys, keys_to_revoke, revoke_keys
from django_apikeys.services.changes import IssuedSecret
from django_apikeys.services.keys import (
    CHANGEABLE,
    ROW_DELETED,
    UNSAID,
    create_key,
    delete_key,
    note_deleted_row,
    revoke_key,
    update_key,
)
from django_apikeys.services.retrieval import (
    Reencrypted,
    forget_secrets,
    kept_secrets,
    last_reveal,
    reencrypt_secrets,
    require_revealable,
    reveal_secret,
)
from django_apikeys.services.secrets import (
    REUSE_TOLD_EVERY,
    SECRET_REUSED,
    mark_first_use,
    note_reuse,
    rehash_secret,
    retire_secret,
    rotate_key,
)

__all__ = [
    "CHANGEABLE",
    "REUSE_TOLD_EVERY",
    "ROW_DELETED",
    "SECRET_REUSED",
    "UNSAID",
    "IssuedSecret",
    "Reencrypted",
    "RevokedKeys",
    "create_key",
    "delete_key",
    "forget_secrets",
    "kept_secrets",
    "keys_to_revoke",
    "last_reveal",
    "mark_first_use",
    "note_deleted_row",
    "note_reuse",
    "reencrypt_secrets",
    "rehash_secret",
    "require_revealable",
    "retire_secret",
    "reveal_secret",
    "revoke_key",
    "revoke_keys",
    "rotate_key",
    "update_key",
]
