"""``manage.py apikeys``: keys from the command line."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentTypeError
from collections import Counter
from datetime import UTC, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from django.core.exceptions import (
    ImproperlyConfigured,
    MultipleObjectsReturned,
    ObjectDoesNotExist,
)
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error as DatabaseTrouble
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from django_apikeys import notices, pruning, reports, services, terminal
from django_apikeys.actors import Actor
from django_apikeys.conf import LONGEST, conf
from django_apikeys.exceptions import ChangeRefused
from django_apikeys.keys.format import scanner_pattern
from django_apikeys.lookups import find_keys, find_person
from django_apikeys.models import STATUSES, APIKey, count_by_pepper
from django_apikeys.representation import is_kept, key_as_dict
from django_apikeys.usage import MemoryRecorder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from django_apikeys.models import APIKeyQuerySet
    from django_apikeys.pruning import Watcher

_T = TypeVar("_T")

ACTOR = Actor("command", name="manage.py apikeys")
# A column of the list: its title and its width; the last takes what it needs.
COLUMNS = (("id", 36), ("key", 28), ("status", 8), ("owner", 20), ("name", 0))

# Of `usage`: the width of the longest bar, and how many routes stand below.
BAR_WIDTH = 40
ROUTES = 10
# How much of a moment names an hour, a day, a month.
START_LENGTHS = {"hour": 16, "day": 10, "month": 7}
PRUNED = {
    "keys": "keys deleted more than {0.DELETED_DAYS} days ago",
    "secrets": "secrets retired more than {0.RETIRED_DAYS} days ago",
    "texts": "texts kept of secrets that have ended",
    "counters": "counters of keys that are gone",
    "usage": "rows of usage older than {0.USAGE_DAYS} days",
    "hours": "rows of usage by the hour older than {0.USAGE_HOURLY_DAYS} days, rolled into days",
    "addresses": "addresses not seen for {0.USAGE_DAYS} days",
    "batches": "ids of flushes older than 7 days",
}
TOLD = {
    "expires_in_30": "that a key expires in 30 days",
    "expires_in_7": "that it expires in 7 days",
    "expires_in_1": "that it expires in a day",
    "expired": "that it has expired",
    "unused": "that it is not used",
    "rotation_due": "that its secret is due for rotation",
}


class Command(BaseCommand):
    """Exit code 0; 1 for an action that was refused or failed; 2 for wrong usage."""

    # Whatever is wrong with the settings, a key can be revoked.
    requires_system_checks = ()

    help = (
        "Create, list, show, rotate, revoke and delete API keys; show, flush and prune their "
        "usage; send notices; count peppers; forget and re-encrypt what is kept; print the "
        "pattern."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

        self._add_keys(actions)
        self._add_upkeep(actions)
        for action in actions.choices.values():
            action.add_argument("--json", action="store_true", help="One JSON text on stdout.")

    def _add_keys(self, actions: Any) -> None:
        create = actions.add_parser("create", help="Make a key; its secret goes to stdout, once.")
        create.add_argument("--name", default="", help="What the key is for.")
        create.add_argument("--owner", help="Whom it acts for; without: the project itself.")
        create.add_argument("--description", default="")
        create.add_argument("--environment", help="Default: the first of APIKEYS_ENVIRONMENTS.")
        create.add_argument("--scope", action="append", default=[], dest="scopes", metavar="SCOPE")
        create.add_argument(
            "--allowed-ip", action="append", default=[], dest="allowed_ips", metavar="NETWORK"
        )
        create.add_argument("--rate-limit", metavar="RATE", help="For instance 300/m.")
        create.add_argument(
            "--expires-at",
            metavar="MOMENT",
            help="For instance 2027-01-31T12:00:00Z, or never. Default: as the settings say.",
        )
        create.set_defaults(run=self._create)

        listing = actions.add_parser("list", help="List keys, the newest first.")
        listing.add_argument("--owner", help="Keys of this owner alone.")
        listing.add_argument("--status", choices=STATUSES)
        listing.add_argument("--search", help="A part of name, description or public id.")
        listing.set_defaults(run=self._list)

        show = actions.add_parser("show", help="Show all of a key but its secret.")
        show.add_argument("key", metavar="KEY", help="Its id or public id.")
        show.set_defaults(run=self._show)

        revoke = actions.add_parser("revoke", help="Revoke keys for good.")
        which = revoke.add_mutually_exclusive_group(required=True)
        which.add_argument(
            "keys", nargs="*", default=[], metavar="KEY", help="Its id or public id."
        )
        which.add_argument("--owner", help="All keys of this owner.")
        which.add_argument(
            "--created-by", metavar="USER", help="All keys that this person has made."
        )
        which.add_argument(
            "--from-file",
            metavar="FILE",
            help="All keys that it names, one on a line, by id, public id or secret; - is stdin.",
        )
        revoke.add_argument("--reason", default="")
        revoke.add_argument(
            "--cascade", action="store_true", help="Also the keys that were made through them."
        )
        revoke.add_argument("--dry-run", action="store_true", help="Say which it would be.")
        revoke.set_defaults(run=self._revoke)

        rotate = actions.add_parser(
            "rotate", help="Give a key a new secret, which goes to stdout, once."
        )
        rotate.add_argument("key", metavar="KEY", help="Its id or public id.")
        rotate.add_argument(
            "--grace-seconds",
            type=int,
            metavar="N",
            help="How long the secret before lives on: 0 to 2592000. Default: a day.",
        )
        rotate.add_argument(
            "--starts",
            choices=("now", "first_use"),
            default="now",
            help="When that begins: now, or when the new secret is first used.",
        )
        rotate.add_argument(
            "--compromised", action="store_true", help="Every earlier secret ends at once."
        )
        rotate.add_argument(
            "--current", metavar="PUBLIC_ID", help="Refuse where the current secret is another."
        )
        rotate.add_argument("--reason", default="")
        rotate.set_defaults(run=self._rotate)

        retire = actions.add_parser("retire", help="End the previous secret of a key now.")
        retire.add_argument("key", metavar="KEY", help="Its id or public id.")
        retire.add_argument("--reason", default="")
        retire.set_defaults(run=self._retire)

        delete = actions.add_parser("delete", help="Revoke a key and take it out of every list.")
        delete.add_argument("key", metavar="KEY", help="Its id or public id.")
        delete.add_argument("--reason", default="")
        delete.set_defaults(run=self._delete)

    def _add_upkeep(self, actions: Any) -> None:
        usage = actions.add_parser("usage", help="Show what a key was used for.")
        usage.add_argument("key", metavar="KEY", help="Its id or public id.")
        usage.add_argument(
            "--days", type=_days, default=reports.DAYS, help="So many, today included."
        )
        usage.add_argument("--granularity", choices=reports.GRANULARITIES, default="day")
        usage.set_defaults(run=self._usage)

        flush = actions.add_parser("flush", help="Move what was counted to the database.")
        flush.set_defaults(run=self._flush)

        notify = actions.add_parser("notify", help="Tell of keys that need to be looked after.")
        notify.add_argument("--dry-run", action="store_true", help="Say what it would be.")
        notify.set_defaults(run=self._notify)

        prune = actions.add_parser("prune", help="Delete what need not be kept any more.")
        prune.add_argument("--dry-run", action="store_true", help="Say what it would be.")
        prune.set_defaults(run=self._prune)

        peppers = actions.add_parser("peppers", help="Count the secrets by the pepper they need.")
        peppers.set_defaults(run=self._peppers)

        forget = actions.add_parser(
            "forget-secrets", help="Empty what is kept of secrets in the retrievable mode."
        )
        forget.set_defaults(run=self._forget_secrets)

        reencrypt = actions.add_parser(
            "reencrypt", help="Encrypt what is kept of secrets with the newest key."
        )
        reencrypt.set_defaults(run=self._reencrypt)

        pattern = actions.add_parser("pattern", help="Print a regular expression for scanners.")
        pattern.set_defaults(run=self._pattern)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            options["run"](options)
            with terminal.output_written():
                self.stdout.flush()
        except terminal.OutputFailed as failed:
            self._end_unprinted(failed)
        except ChangeRefused as error:
            raise CommandError(_one_line(error)) from error
        except DatabaseTrouble as error:
            raise CommandError(f"The database says: {_one_line(error)}") from error

    def _create(self, options: dict[str, Any]) -> None:
        issued = services.create_key(
            owner=_owner(options["owner"]),
            actor=ACTOR,
            name=options["name"],
            description=options["description"],
            environment=options["environment"],
            scopes=options["scopes"],
            allowed_ips=options["allowed_ips"],
            rate_limit=options["rate_limit"],
            expires_at=_expiry(options["expires_at"]),
        )
        facts = key_as_dict(issued.key, timezone.now())
        if options["json"]:
            self._print_json({**facts, "secret": issued.secret})
            return
        self._say(f"Created {facts['id']} ({facts['masked']}) {facts['name']}")
        self._say(f"The secret {_how_shown(issued.key)}:")
        self._print(issued.secret)

    def _list(self, options: dict[str, Any]) -> None:
        now = timezone.now()
        keys: APIKeyQuerySet = APIKey.objects.listed()
        if options["owner"] is not None:
            keys = keys.filter(owner=_owner(options["owner"]))
        if options["status"] is not None:
            keys = keys.with_status(options["status"], now)
        if options["search"] is not None:
            keys = keys.search(options["search"])
        # By and by: there may be a million.
        rows = (key_as_dict(key, now) for key in keys.iterator(chunk_size=500))
        if options["json"]:
            self._print_json_list(rows)
            return
        self._print(_line([title for title, _width in COLUMNS]))
        for row in rows:
            owner = row["owner"]["name"] if row["owner"] else "-"
            self._print(_line([row["id"], row["masked"], row["status"], owner, row["name"]]))

    def _show(self, options: dict[str, Any]) -> None:
        facts = key_as_dict(_key(options["key"]), timezone.now())
        if options["json"]:
            self._print_json(facts)
            return
        for name, value in facts.items():
            shown = value["name"] if isinstance(value, dict) and "name" in value else value
            self._print(f"{name:16} {_plain(shown)}")

    def _revoke(self, options: dict[str, Any]) -> None:
        if len(options["keys"]) == 1 and not options["dry_run"]:
            self._revoke_one(options["keys"][0], options)
            return
        keys, unknown = self._named(options)
        problems = []
        if unknown:
            # Not echoed: what stands there may be a secret.
            where = "KEY" if options["from_file"] is None else "line"
            problems.append(f"There is no key by this id or public id: {where} {_some(unknown)}.")
        cascade = options["cascade"]
        if options["dry_run"]:
            ids: Sequence[UUID] = services.keys_to_revoke(keys=keys, cascade=cascade)
        else:
            revoked = self._watched(
                lambda watch: services.revoke_keys(
                    keys=keys, actor=ACTOR, reason=options["reason"], cascade=cascade, watch=watch
                )
            )
            ids = revoked.ids
            if not revoked.is_complete:
                problems.append("Others were made meanwhile: run this again.")
        if options["json"]:
            texts = [str(id_) for id_ in ids]
            dry_run = options["dry_run"]
            self._print_json({"dry_run": dry_run, "revoked": texts, "unknown": unknown})
        else:
            would = "This would revoke" if options["dry_run"] else "Revoked"
            self._say(f"{would} {len(ids):,} {'key' if len(ids) == 1 else 'keys'}.")
        if problems:
            raise CommandError(" ".join(problems))

    def _revoke_one(self, text: str, options: dict[str, Any]) -> None:
        key = _key(text)
        services.revoke_key(
            key=key, actor=ACTOR, reason=options["reason"], cascade=options["cascade"]
        )
        facts = key_as_dict(_key(text), timezone.now())
        if options["json"]:
            self._print_json(facts)
            return
        self._say(f"Revoked {facts['id']} ({facts['masked']}) {facts['name']}")

    def _named(self, options: dict[str, Any]) -> tuple[Iterable[APIKey], list[int]]:
        """Return the keys that are to be revoked, and the numbers of those that are none."""
        if options["owner"] is not None:
            return APIKey.objects.filter(owner=_owner(options["owner"])), []
        if options["created_by"] is not None:
            return APIKey.objects.filter(created_by=_person(options["created_by"])), []
        if options["from_file"] is not None:
            return find_keys(_names(_lines_of(options["from_file"])))
        return find_keys(enumerate(options["keys"], start=1))

    def _rotate(self, options: dict[str, Any]) -> None:
        issued = services.rotate_key(
            key=_key(options["key"]),
            actor=ACTOR,
            grace_seconds=options["grace_seconds"],
            starts=options["starts"],
            compromised=options["compromised"],
            current=options["current"],
            reason=options["reason"],
        )
        facts = key_as_dict(issued.key, timezone.now())
        if options["json"]:
            self._print_json({**facts, "secret": issued.secret})
            return
        self._say(f"Rotated {facts['id']} ({facts['masked']}) {facts['name']}")
        if previous := facts["previous_secret"]:
            until = previous["valid_until"] or "the new one is used, and then for its grace"
            self._say(f"The secret before, {previous['masked']}, works until {until}.")
        else:
            self._say("Every earlier secret has ended.")
        self._say(f"The new secret {_how_shown(issued.key)}:")
        self._print(issued.secret)

    def _retire(self, options: dict[str, Any]) -> None:
        key = _key(options["key"])
        services.retire_secret(key=key, actor=ACTOR, reason=options["reason"])
        facts = key_as_dict(_key(options["key"]), timezone.now())
        if options["json"]:
            self._print_json(facts)
            return
        self._say(f"Retired the previous secret of {facts['id']} ({facts['masked']})")

    def _delete(self, options: dict[str, Any]) -> None:
        key = _key(options["key"])
        facts = key_as_dict(key, timezone.now())
        services.delete_key(key=key, actor=ACTOR, reason=options["reason"])
        if options["json"]:
            self._print_json({"id": facts["id"], "deleted": True})
            return
        self._say(f"Deleted {facts['id']} ({facts['masked']}) {facts['name']}")

    def _usage(self, options: dict[str, Any]) -> None:
        key, now = _key(options["key"]), timezone.now()
        granularity = options["granularity"]
        # The hour of now is a part of today, the last of these days.
        begins_at = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        begins_at -= timedelta(days=options["days"] - 1)
        report = reports.key_usage(key, now, begins_at=begins_at, granularity=granularity)
        if options["json"]:
            self._print_json(report)
            return
        self._print(f"{key.masked} {key.name}".rstrip())
        self._print("  ".join(f"{n:,} {name}" for name, n in report["totals"].items()))
        self._print("")
        self._print_series(report["series"], START_LENGTHS[granularity])
        if report["by_route"]:
            self._print("")
            self._print(f"{'requests':>10}  {'errors':>8}  route")
        for row in report["by_route"][:ROUTES]:
            counts = f"{row['requests']:>10,}  {row['errors']:>8,}"
            self._print(f"{counts}  {row['method']} {row['route']}")

    def _print_series(self, series: Sequence[Mapping[str, Any]], length: int) -> None:
        plain = terminal.is_plain(self.stdout)
        most = max(row["requests"] for row in series)
        self._print(f"{'UTC':{length}}  {'requests':>10}  {'errors':>8}  {'limited':>8}")
        for row in series:
            counts = f"{row['requests']:>10,}  {row['errors']:>8,}  {row['limited']:>8,}"
            bar = terminal.bar(row["requests"], most, BAR_WIDTH, plain=plain)
            self._print(f"{row['start'][:length]}  {counts}  {bar}".rstrip())

    def _flush(self, options: dict[str, Any]) -> None:
        recorder = conf.usage_recorder
        try:
            rows = recorder.flush()
        except DatabaseTrouble:
            raise
        except Exception as error:  # each recorder has errors of its own
            raise CommandError(f"Nothing could be flushed: {_one_line(error)}") from error
        if options["json"]:
            self._print_json({"rows": rows})
            return
        self._say(f"Flushed {rows:,} rows.")
        if type(recorder) is MemoryRecorder:
            self._say(
                "APIKEYS_USAGE_RECORDER counts in each process, which flushes what is its own: "
                "nothing of another could be flushed here."
            )

    def _notify(self, options: dict[str, Any]) -> None:
        now = timezone.now()
        if options["dry_run"]:
            self._list_notices(now, as_json=options["json"])
            return
        sent = notices.send_due(now)
        if options["json"]:
            self._print_json({"dry_run": False, **sent.counts, "failed": sent.failed})
        else:
            self._say_notices("Sent:", sent.counts)
        if sent.failed:
            raise CommandError(
                f"{sent.failed:,} could not be sent: the log says why. "
                "A run in an hour or later tries again."
            )

    def _list_notices(self, now: datetime, *, as_json: bool) -> None:
        counts, listed = Counter(dict.fromkeys(TOLD, 0)), []
        for notice in notices.due(now):
            counts[notice.kind] += 1
            key = {"id": str(notice.key_id), "name": notice.key_name}
            if as_json:
                listed.append({"kind": notice.kind, "key": key, "about": notice.about})
            else:
                self._print(f"{notice.kind:13}  {key['id']}  {key['name']}")
        if as_json:
            self._print_json({"dry_run": True, **counts, "notices": listed})
        else:
            self._say_notices("This would be sent:", counts)

    def _say_notices(self, title: str, counts: Mapping[str, int]) -> None:
        self._say(title)
        for kind, text in TOLD.items():
            self._say(f"{counts[kind]:>12,}  {text}")

    def _prune(self, options: dict[str, Any]) -> None:
        now, dry_run = timezone.now(), options["dry_run"]
        rows = (
            pruning.due(now) if dry_run else self._watched(lambda watch: pruning.prune(now, watch))
        )
        if options["json"]:
            self._print_json({"dry_run": dry_run, **rows})
            return
        self._say("This would be pruned:" if dry_run else "Pruned:")
        for name, text in PRUNED.items():
            self._say(f"{rows[name]:>12,}  {text.format(conf)}")

    def _watched(self, work: Callable[[Watcher | None], _T]) -> _T:
        progress = terminal.Progress(self.stderr)
        if not progress.is_shown:
            return work(None)
        try:
            return work(progress.show)
        finally:
            progress.end()

    def _peppers(self, options: dict[str, Any]) -> None:
        counts = count_by_pepper()
        if options["json"]:
            self._print_json(
                [
                    {"pepper": name, "secrets": count, "configured": conf.hasher.knows(digest)}
                    for name, digest, count in counts
                ]
            )
            return
        for name, digest, count in counts:
            unknown = "" if conf.hasher.knows(digest) else "  NOT CONFIGURED"
            self._print(f"{count:10}  {name}{unknown}")

    def _forget_secrets(self, options: dict[str, Any]) -> None:
        forgotten = services.forget_secrets()
        if options["json"]:
            self._print_json({"forgotten": forgotten})
            return
        self._say(f"Forgot {forgotten:,} secrets; their keys go on working.")
        if conf.RETRIEVABLE:
            self._say("APIKEYS_RETRIEVABLE is on: new secrets are kept.")

    def _reencrypt(self, options: dict[str, Any]) -> None:
        try:
            done = services.reencrypt_secrets()
        except ImproperlyConfigured as error:
            raise CommandError(_one_line(error)) from error
        if options["json"]:
            self._print_json({"reencrypted": done.rewritten, "unreadable": done.unreadable})
        else:
            self._say(f"Encrypted {done.rewritten:,} secrets with the newest key.")
        if done.unreadable:
            raise CommandError(
                f"{done.unreadable:,} secrets cannot be read with APIKEYS_ENCRYPTION_KEYS."
            )

    def _pattern(self, options: dict[str, Any]) -> None:
        pattern = scanner_pattern(conf.PREFIXES, conf.ENVIRONMENTS)
        if options["json"]:
            self._print_json({"pattern": pattern})
            return
        self._print(pattern)

    def _print_json(self, value: Any) -> None:
        self._write(json.dumps(value, indent=2, ensure_ascii=False))

    def _print_json_list(self, values: Iterable[Any]) -> None:
        opening = "["
        for value in values:
            self._write(f"{opening}\n{json.dumps(value, ensure_ascii=False)}", ending="")
            opening = ","
        self._write("[]" if opening == "[" else "\n]")

    def _print(self, text: str) -> None:
        # Names and routes are anybody's: no control character reaches a terminal.
        self._write(terminal.printable(text))

    def _write(self, text: str, ending: str | None = None) -> None:
        with terminal.output_written():
            self.stdout.write(text, ending=ending)

    def _say(self, text: str) -> None:
        # To stderr, but not in the red of an error.
        self.stderr.write(terminal.printable(text), lambda plain: plain)

    def _end_unprinted(self, failed: terminal.OutputFailed) -> NoReturn:
        if self._called_from_command_line:  # type: ignore[attr-defined]  # the stubs lack it
            terminal.drop(self.stdout)
            if isinstance(failed.__cause__, BrokenPipeError):
                sys.exit(1)  # | head: who reads has seen enough
        raise CommandError(f"stdout: {failed}") from failed


def _days(text: str) -> int:
    # By its length first: int() refuses texts of thousands of digits.
    if text.isascii() and text.isdigit() and len(text) <= len(str(LONGEST.days)):
        days = int(text)
        if 1 <= days <= LONGEST.days:
            return days
    raise ArgumentTypeError(f"a whole number from 1 to {LONGEST.days} is needed.")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _owner(text: str | None) -> Any:
    if text is None:
        return None
    try:
        return conf.policy.find_owner(text)
    except (ObjectDoesNotExist, UnicodeEncodeError) as error:
        raise CommandError(f"There is no owner {text!r}.") from error
    except MultipleObjectsReturned as error:
        raise CommandError(f"There are several owners {text!r}: name one by its id.") from error


def _person(text: str) -> Any:
    try:
        return find_person(text)
    except (ObjectDoesNotExist, UnicodeEncodeError) as error:
        raise CommandError(f"There is no user {text!r}.") from error


def _lines_of(name: str) -> list[str]:
    """Return the lines of the file *name*, of stdin for ``-``. What is no text names no key."""
    try:
        content = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise CommandError(f"--from-file: {_one_line(error)}", returncode=2) from error
    return content.decode("utf-8-sig", errors="replace").split("\n")


def _names(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(lines, start=1):
        if name := line.partition("#")[0].strip():
            yield number, name


def _some(numbers: Sequence[int], most: int = 20) -> str:
    return ", ".join([*map(str, numbers[:most]), *["…"] * (len(numbers) > most)])


def _key(text: str) -> APIKey:
    found, _unknown = find_keys([(1, text)])
    key = APIKey.objects.listed().filter(pk__in=[key.pk for key in found]).first()
    if key is None:
        # Not echoed: what was pasted may be a secret.
        raise CommandError(
            "There is no key with this id or public id (the part of a secret before its last _)."
        )
    return key


def _how_shown(key: APIKey) -> str:
    return "is kept, encrypted" if is_kept(key) else "is shown this once"


def _expiry(text: str | None) -> datetime | None:
    if text is None:
        unsaid: datetime | None = services.UNSAID
        return unsaid
    if text == "never":
        return None
    try:
        moment = parse_datetime(text)
    except ValueError:
        moment = None
    if moment is None:
        raise CommandError(
            "--expires-at: a moment such as 2027-01-31T12:00:00Z is needed, or never.",
            returncode=2,
        )
    return timezone.make_aware(moment) if timezone.is_naive(moment) else moment


def _line(cells: Sequence[str]) -> str:
    padded = zip(COLUMNS, cells, strict=True)
    return "  ".join(cell.ljust(width) for (_title, width), cell in padded).rstrip()


def _plain(value: Any) -> str:
    if value is None or value in ("", [], {}):
        return "-"
    if isinstance(value, list):
        return " ".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
