"""Reads csv, tsv, JSON-lines and parquet files into records with line numbers.

Every read is bounded: a line longer than `MAX_LINE` bytes is refused before it fills the memory. Knows nothing about
which column is the text; `sources.py` does.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping, Sequence

from postgrad.errors import UserError, near_miss

MAX_LINE = 1_000_000
SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
BYTE_ORDER_MARKS = (b"\xff\xfe", b"\xfe\xff")
# How files begin that somebody gave the name of a text file.
BINARY = {
    b"\x1f\x8b": "gzip-compressed",
    b"PK\x03\x04": "a zip archive or a spreadsheet",
    b"BZh": "bzip2-compressed",
    b"\xfd7zXZ": "xz-compressed",
    b"\x28\xb5\x2f\xfd": "zstd-compressed",
    b"PAR1": "a parquet file",
    b"SQLite format 3": "an SQLite database",
    **{bytes((0x80, version)): "a Python pickle, which is never opened" for version in range(2, 6)},
}
SHOWN = 200


@dataclass(frozen=True)
class Table:
    """Rows of one source.

    Attributes:
        name: the source as messages call it.
        columns: column names in file order.
        records: (line, cells by column); lines count from 1, in the file for text formats, in the table for others.
        unit: what a line number counts, "line" or "row".
    """

    name: str
    columns: tuple[str, ...]
    records: tuple[tuple[int, Mapping[str, Any]], ...]
    unit: str = "line"


def check_file(path: Path) -> None:
    """Check that `path` is a regular file of a known format.

    Raises:
        UserError: it is missing, a folder, something else than a file, or of an unknown format.
    """
    try:
        exists, is_folder, is_file = path.exists(), path.is_dir(), path.is_file()
    except OSError as refused:
        raise _cannot_read(path, refused) from refused
    if not exists:
        raise UserError(_missing(path))
    if is_folder:
        raise UserError(
            f"{path} is a folder, and a data file was expected. Name a file in it, such as {path}/train.csv; "
            f"for a data set folder in the Hub's format write hub:{path}."
        )
    if not is_file:
        raise UserError(f"{path} is not a regular file. Copy the data into a file and name that.")
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(
            f"{path}: the format '{path.suffix or path.name}' is not known. Expected one of {', '.join(SUFFIXES)}; "
            f"rename or convert the file."
        )


def read_file(path: Path, columns: Sequence[str] | None = None) -> Table:
    """Read a whole file. `columns` limits what is read where the format allows it (parquet).

    Raises:
        UserError: the file is missing, empty, has only a header, is not UTF-8, or cannot be parsed.
    """
    check_file(path)
    readers: dict[str, Callable[[], Table]] = {
        ".csv": lambda: _read_csv(path, ","),
        ".tsv": lambda: _read_tsv(path),
        ".jsonl": lambda: _read_jsonl(path),
        ".ndjson": lambda: _read_jsonl(path),
        ".parquet": lambda: _read_parquet(path, columns),
    }
    try:
        if path.stat().st_size == 0:
            raise UserError(f"{path} is empty. Expected a header line and at least two rows; was the export cut off?")
        table = readers[path.suffix.lower()]()
    except OSError as refused:
        raise _cannot_read(path, refused) from refused
    if not table.records:
        raise UserError(
            f"{path} has no rows, only {'a header: ' + _listed(table.columns) if table.columns else 'blank lines'}. "
            f"Add rows, or name another file."
        )
    return table


def read_lines(path: Path) -> tuple[tuple[int, str], ...]:
    """Read a plain text file: (line number, text) of each line that is not blank.

    Raises:
        UserError: the file is missing, holds no text, is not UTF-8, or has a line that is too long.
    """
    try:
        found = tuple((number, line.strip()) for number, line in _lines(path) if line.strip())
    except FileNotFoundError as missing:
        raise UserError(_missing(path)) from missing
    except OSError as refused:
        raise _cannot_read(path, refused) from refused
    if not found:
        raise UserError(f"{path} holds no text. Expected one text a line.")
    return found


def _listed(columns: Sequence[str]) -> str:
    text = ", ".join(columns)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _cannot_read(path: Path, refused: OSError) -> UserError:
    name = str(path) if len(str(path)) < 300 else f"{str(path)[:100]}..."
    return UserError(
        f"{name} cannot be read: {refused.strerror or refused}. Check its name and its permissions, then try again."
    )


def _missing(path: Path) -> str:
    if not path.parent.is_dir():
        return f"There is no file {path}: the folder {path.parent} does not exist. Check the path."
    names = [entry.name for entry in islice(path.parent.iterdir(), 1000)]
    data = sorted(name for name in names if Path(name).suffix.lower() in SUFFIXES)
    hint = near_miss(path.name, names)
    listed = f" Data files in {path.parent}: {', '.join(data[:8])}." if data and not hint else ""
    return f"There is no file {path}.{hint}{listed} Check the path; it is taken from the folder of the task file."


# --- text lines -----------------------------------------------------------------------------------------------------


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number, decoded line with its end); never holds more than one bounded line."""
    with path.open("rb") as file:
        number = 0
        while raw := file.readline(MAX_LINE + 1):
            number += 1
            if len(raw) > MAX_LINE:
                raise UserError(
                    f"{path} line {number} is longer than {MAX_LINE:,} bytes. Expected one example a line; a missing "
                    f"line end or an export of something else makes such a line. Remove or shorten it."
                )
            if number == 1 and (kind := next((what for mark, what in BINARY.items() if raw.startswith(mark)), None)):
                raise UserError(
                    f"{path} is {kind}, and its name says {path.suffix}. Unpack or export it as text in UTF-8, or name "
                    f"it as what it is."
                )
            if number == 1 and raw.startswith(BYTE_ORDER_MARKS):
                raise UserError(
                    f"{path} is UTF-16 (line 1 starts with its byte-order mark); UTF-8 was expected. "
                    f"Convert it: iconv -f UTF-16 -t UTF-8 {path.name} > utf8_{path.name}"
                )
            yield number, _decode(path, number, raw)


def _decode(path: Path, number: int, raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as wrong:
        byte = wrong.object[wrong.start]
        guess = bytes([byte]).decode("cp1252", errors="replace")
        shown = f" (in Windows-1252 it would be '{guess}')" if guess != "\ufffd" else ""
        raise UserError(
            f"{path} line {number}, byte {wrong.start + 1} of the line: 0x{byte:02x} is not UTF-8{shown}; UTF-8 was "
            f"expected. Save the file as UTF-8, or convert it: "
            f"iconv -f WINDOWS-1252 -t UTF-8 {path.name} > utf8_{path.name}"
        ) from wrong


# --- csv and tsv ----------------------------------------------------------------------------------------------------


class _Malformed(Exception):
    """A line that the chosen quoting cannot read. The text names the line and says what to do."""


def _read_csv(path: Path, delimiter: str, quoted: bool = True) -> Table:
    try:
        return _parse_csv(path, delimiter, quoted)
    except _Malformed as wrong:
        raise UserError(str(wrong)) from wrong


def _read_tsv(path: Path) -> Table:
    """Quoted as spreadsheets write it where that fits every line; else with plain quotation marks in the text."""
    try:
        return _parse_csv(path, "\t", quoted=True)
    except _Malformed:
        return _read_csv(path, "\t", quoted=False)


def _parse_csv(path: Path, delimiter: str, quoted: bool) -> Table:
    lines = (line for _, line in _lines(path))
    reader = csv.reader(
        lines, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE, strict=quoted
    )
    columns: tuple[str, ...] = ()
    records: list[tuple[int, Mapping[str, Any]]] = []
    while True:
        start = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as wrong:
            raise _Malformed(
                f"{path} line {start}: {wrong}. Expected one row a line; a quotation mark that is never closed, or one "
                f'in the middle of a quoted text that is not doubled (""), does this. Correct that line.'
            ) from wrong
        if cells is None:
            return Table(str(path), columns, tuple(records))
        if not any(cell.strip() for cell in cells):
            continue
        if not columns:
            columns = _header(path, cells)
            continue
        records.append((start, _row(path, start, columns, cells, delimiter)))


def _header(path: Path, cells: Sequence[str]) -> tuple[str, ...]:
    names = [cell.strip() for cell in cells]
    double = sorted({name for name in names if name and names.count(name) > 1})
    if double:
        raise UserError(
            f"{path}: the header has the column '{double[0]}' more than once. Rename or remove one of them."
        )
    return tuple(names)


def _row(path: Path, line: int, columns: Sequence[str], cells: list[str], delimiter: str) -> Mapping[str, Any]:
    while len(cells) > len(columns) and not cells[-1].strip():
        cells.pop()
    if len(cells) != len(columns):
        what = "comma" if delimiter == "," else "tab"
        raise _Malformed(
            f"{path} line {line} has {len(cells)} fields, and the header has {len(columns)} ({_listed(columns)}). "
            f"A {what} inside a text needs quotation marks around the text. Correct that line."
        )
    return dict(zip(columns, cells, strict=True))


# --- JSON lines and parquet -----------------------------------------------------------------------------------------


def _read_jsonl(path: Path) -> Table:
    columns: dict[str, None] = {}
    records: list[tuple[int, Mapping[str, Any]]] = []
    for number, line in _lines(path):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as wrong:
            array = " The file looks like one JSON array; write one object a line." if line[0] == "[" else ""
            raise UserError(
                f"{path} line {number} is not JSON: {wrong}.{array} Expected one object a line, such as "
                f'{{"text": "...", "label": "..."}}. Correct that line.'
            ) from wrong
        if not isinstance(record, dict):
            raise UserError(
                f"{path} line {number} is a JSON {type(record).__name__}, and an object was expected, such as "
                f'{{"text": "...", "label": "..."}}. Write one object a line.'
            )
        columns.update(dict.fromkeys(record))
        records.append((number, record))
    return Table(str(path), tuple(columns), tuple(records))


def _read_parquet(path: Path, wanted: Sequence[str] | None) -> Table:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ModuleNotFoundError as missing:
        raise UserError(
            f"{path} needs the library 'pyarrow', which is not installed. Install it with: pip install pyarrow, "
            f"or convert the file to csv."
        ) from missing
    try:
        with parquet.ParquetFile(path) as file:
            names = tuple(file.schema_arrow.names)
            chosen = [name for name in names if wanted is None or name in wanted]
            rows = file.read(columns=chosen).to_pylist()
    except pyarrow.ArrowException as wrong:
        raise UserError(
            f"{path} is not a parquet file that can be read: {wrong}. Export it again, or convert it to csv."
        ) from wrong
    return Table(str(path), names, tuple(enumerate(rows, start=1)), unit="row")
