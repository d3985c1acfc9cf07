"""The mailbox of a run: orders in, from any process; read by the one controller of the run.

    runs/NAME/orders.jsonl   one order a line, append-only

An order is on the disk before its writer says so. Nothing is ever taken out: what was decided is in the event log, by
the order's id, so a controller that is killed between the two decides once. Whatever else stands in the file is no
order, and is passed over.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from pathlib import Path

from pydantic import ValidationError

from postgrad.errors import UserError
from postgrad.records import Order, Wish
from postgrad.store.artifacts import sync_folder

MAILBOX = "orders.jsonl"
# Longer lines are no orders; as many bytes are read at a time.
LONGEST = 200_000
CHUNK = 1_000_000


def new_order(wish: Wish, by: str, reason: str = "") -> Order:
    """An order with an id of its own. Texts are put on one line, and cut where they are too long for a record."""
    return Order(
        id=secrets.token_hex(16), at=time.time(), by=_line(by)[:120] or "somebody", reason=_line(reason), wish=wish
    )


def _line(text: str) -> str:
    return " ".join(text.split())


def post(folder: Path, order: Order) -> None:
    """Put an order into the mailbox of the run in `folder`. It survives a crash of the machine.

    Raises:
        UserError: the order is too long, or the folder cannot be written.
    """
    line = order.model_dump_json().encode() + b"\n"
    if len(line) > LONGEST:
        raise UserError(
            f"The order has {len(line):,} bytes, and at most {LONGEST:,} are taken. Make the recipe smaller."
        )
    path = folder / MAILBOX
    try:
        new = not path.exists()
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            size = os.fstat(file).st_size
            if size and os.pread(file, 1, size - 1) != b"\n":  # A writer was killed in the middle of its line.
                line = b"\n" + line
            _write(file, line)
            os.fsync(file)
        finally:
            os.close(file)
        if new:
            sync_folder(folder)
    except OSError as error:
        raise UserError(
            f"The order cannot be written to {path}: {error.strerror or error}. Whoever gives orders to a run needs "
            "the right to write to its folder, and room on its disk."
        ) from error


def _write(file: int, line: bytes) -> None:
    while line:
        line = line[os.write(file, line) :]


class Reader:
    """Reads a mailbox from its beginning, and what is added to it at each call."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / MAILBOX
        self.passed_over = 0
        self._at = 0
        self._begun = b""
        self._too_long = False

    def new(self) -> tuple[Order, ...]:
        """The orders that were added since the last call, in order. A line that is not ended yet is read later."""
        try:
            size = self.path.stat().st_size
            if size < self._at:  # The file is another one now. Ids tell what was decided before.
                self._at, self._begun, self._too_long = 0, b"", False
            if size == self._at:
                return ()
            with self.path.open("rb") as file:
                file.seek(self._at)
                found: list[Order] = []
                while chunk := file.read(CHUNK):
                    self._at += len(chunk)
                    found += self._orders(chunk)
        except OSError:  # No mailbox, or none that can be read: there is no order then.
            return ()
        return tuple(found)

    def _orders(self, chunk: bytes) -> list[Order]:
        *lines, self._begun = (self._begun + chunk).split(b"\n")
        found = []
        for line in lines:
            order = None if self._too_long else _order(line)
            self._too_long = False
            if order is not None:
                found.append(order)
            elif line.strip():
                self.passed_over += 1
        if len(self._begun) > LONGEST:
            self._begun, self._too_long = b"-", True
        return found


def _order(line: bytes) -> Order | None:
    if not line.strip() or len(line) > LONGEST:
        return None
    try:
        return Order.model_validate_json(line)
    except (ValidationError, RecursionError):
        return None
