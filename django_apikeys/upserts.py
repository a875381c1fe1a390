"""Rows that are added to: one statement for a thousand of them, on each database.

Not the ORM's ``bulk_create(update_conflicts=True)``: that overwrites what another
process has added in between.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.db.models.constants import OnConflict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models import Model

# Rows of one statement. SQLite takes 32 766 values in one, and no row has more than 7.
CHUNK = 1000


@dataclass(frozen=True)
class Upsert:
    """INSERT, or where the row is there UPDATE, of rows of one table.

    unique: the fields that name a row, under a unique constraint. sums: those that are
    added to. latest: those that take the new value unless the row's is later; the first
    of them is the moment that decides. earliest: a moment that only ever goes back.
    """

    model: type[Model]
    unique: Sequence[str]
    sums: Sequence[str]
    latest: Sequence[str] = ()
    earliest: Sequence[str] = ()

    @property
    def fields(self) -> Sequence[str]:
        """The order of the values of a row."""
        return (*self.unique, *self.sums, *self.latest, *self.earliest)

    def run(
        self, connection: BaseDatabaseWrapper, rows: Sequence[Sequence[Any]], *, told: bool = False
    ) -> list[tuple[Any, ...]]:
        """Write *rows*, sorted; return, if *told*, ``unique`` and ``sums`` as they are now."""
        # In one order for all: two flushes that lock the same rows do not deadlock.
        ordered = sorted(rows, key=lambda row: tuple(map(str, row[: len(self.unique)])))
        found: list[tuple[Any, ...]] = []
        for start in range(0, len(ordered), CHUNK):
            found += self._run(connection, ordered[start : start + CHUNK], told=told)
        return found

    def _run(
        self, connection: BaseDatabaseWrapper, rows: Sequence[Sequence[Any]], *, told: bool
    ) -> list[tuple[Any, ...]]:
        fields = [self._field(name) for name in self.fields]
        values = [
            field.get_db_prep_save(value, connection)
            for row in rows
            for field, value in zip(fields, row, strict=True)
        ]
        sql = self.statement(connection, len(rows))
        returns = told and connection.features.can_return_rows_from_bulk_insert
        if returns:
            sql += f" RETURNING {self._columns(connection, self._told)}"
        with connection.cursor() as cursor:
            cursor.execute(sql, values)
            if returns:
                return self._as_python(cursor.fetchall())
        return self._asked(connection, rows) if told else []

    def statement(self, connection: BaseDatabaseWrapper, rows: int) -> str:
        """Return the statement that writes so many *rows*."""
        marks = f"({', '.join(['%s'] * len(self.fields))})"
        return (
            f"INSERT INTO {self._table(connection)} ({self._columns(connection, self.fields)}) "  # noqa: S608 - names of our own
            f"VALUES {', '.join([marks] * rows)} {self._on_conflict(connection)}"
        )

    @property
    def _told(self) -> Sequence[str]:
        return (*self.unique, *self.sums)

    def _as_python(self, rows: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
        # A driver has a UUID, or its text with or without dashes; a date, or its text.
        fields = [self._field(name) for name in self._told]
        return [
            tuple(field.to_python(value) for field, value in zip(fields, row, strict=True))
            for row in rows
        ]

    def _asked(
        self, connection: BaseDatabaseWrapper, rows: Sequence[Sequence[Any]]
    ) -> list[tuple[Any, ...]]:
        # MySQL has no RETURNING. By the first field, which has an index.
        width = len(self.unique)
        written = {tuple(row[:width]) for row in rows}
        table = self.model._base_manager.using(connection.alias)
        found = table.filter(**{f"{self.unique[0]}__in": {row[0] for row in rows}})
        return [row for row in found.values_list(*self._told) if row[:width] in written]

    def _on_conflict(self, connection: BaseDatabaseWrapper) -> str:
        table = self._table(connection)
        is_mysql = connection.vendor == "mysql"

        def new(column: str) -> str:
            return f"VALUES({column})" if is_mysql else f"excluded.{column}"

        def chosen(column: str, condition: str) -> str:
            return f"{column} = CASE WHEN {condition} THEN {new(column)} ELSE {table}.{column} END"

        columns = {name: self._column(connection, name) for name in self.fields}
        changes = [
            f"{columns[name]} = {table}.{columns[name]} + {new(columns[name])}"
            for name in self.sums
        ]
        # The moment last: MariaDB reads what it has already set.
        for name in reversed(self.latest):
            moment = columns[self.latest[0]]
            is_later = f"{table}.{moment} IS NULL OR {table}.{moment} <= {new(moment)}"
            changes.append(chosen(columns[name], is_later))
        for name in self.earliest:
            moment = columns[name]
            changes.append(chosen(moment, f"{new(moment)} < {table}.{moment}"))
        if is_mysql:
            return f"ON DUPLICATE KEY UPDATE {', '.join(changes)}"
        unique = self._columns(connection, self.unique)
        return f"ON CONFLICT ({unique}) DO UPDATE SET {', '.join(changes)}"

    def _field(self, name: str) -> Any:
        return self.model._meta.get_field(name)

    def _table(self, connection: BaseDatabaseWrapper) -> str:
        return connection.ops.quote_name(self.model._meta.db_table)

    def _column(self, connection: BaseDatabaseWrapper, name: str) -> str:
        return connection.ops.quote_name(self._field(name).column)

    def _columns(self, connection: BaseDatabaseWrapper, names: Sequence[str]) -> str:
        return ", ".join(self._column(connection, name) for name in names)


def insert_once(connection: BaseDatabaseWrapper, row: Model) -> bool:
    """Insert *row*; False where one with its primary key, or unique values, is there already.

    A primary key that it does not have is left to the database, and not told. Another
    transaction that has inserted it is waited for. Nothing is raised, which would break the
    transaction on PostgreSQL.
    """
    fields = [
        field
        for field in row._meta.concrete_fields
        if not (field.primary_key and field.value_from_object(row) is None)
    ]
    names = ", ".join(connection.ops.quote_name(str(field.column)) for field in fields)
    values = [
        field.get_db_prep_save(field.pre_save(row, add=True), connection) for field in fields
    ]
    table = connection.ops.quote_name(row._meta.db_table)
    marks = ", ".join(["%s"] * len(fields))
    insert = connection.ops.insert_statement(on_conflict=OnConflict.IGNORE)
    suffix = connection.ops.on_conflict_suffix_sql(fields, OnConflict.IGNORE, [], [])
    with connection.cursor() as cursor:
        cursor.execute(f"{insert} {table} ({names}) VALUES ({marks}) {suffix}", values)
        return bool(cursor.rowcount)
