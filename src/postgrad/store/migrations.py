"""The tables of a run's event log, version by version.

Migration number N brings a log from version N - 1 to N; the version is SQLite's `user_version`. A breaking change of
the records is a migration too: it rewrites the bodies. A migration that was released is never changed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

APPLICATION_ID = 0x50474C47

Migration = Callable[[sqlite3.Connection], None]


def _events(connection: sqlite3.Connection) -> None:
    """1: the events, append-only and without a gap, whoever writes to the file."""
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(
        "CREATE TABLE events (seq INTEGER PRIMARY KEY, at REAL NOT NULL, clock REAL NOT NULL, "
        "type TEXT NOT NULL, body TEXT NOT NULL)"
    )
    connection.execute(
        "CREATE TRIGGER events_are_not_changed BEFORE UPDATE ON events "
        "BEGIN SELECT RAISE(ABORT, 'events are append-only: they are not changed'); END"
    )
    connection.execute(
        "CREATE TRIGGER events_are_not_deleted BEFORE DELETE ON events "
        "BEGIN SELECT RAISE(ABORT, 'events are append-only: they are not deleted'); END"
    )
    # Also refuses INSERT OR REPLACE, which would not fire the trigger on DELETE.
    connection.execute(
        "CREATE TRIGGER events_leave_no_gap BEFORE INSERT ON events "
        "WHEN NEW.seq IS NOT (SELECT coalesce(max(seq), 0) + 1 FROM events) "
        "BEGIN SELECT RAISE(ABORT, 'events are append-only: the next number is one more than the last'); END"
    )


MIGRATIONS: tuple[Migration, ...] = (_events,)


def version_of(connection: sqlite3.Connection) -> int:
    """Return the version of a log; 0 for an empty file."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def migrate(connection: sqlite3.Connection, migrations: tuple[Migration, ...] = MIGRATIONS) -> None:
    """Bring a log to the last version, one transaction a version. `connection` is in autocommit mode."""
    for number in range(version_of(connection) + 1, len(migrations) + 1):
        connection.execute("BEGIN IMMEDIATE")
        try:
            migrations[number - 1](connection)
            connection.execute(f"PRAGMA user_version = {number}")
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
