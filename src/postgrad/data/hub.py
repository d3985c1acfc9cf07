"""Reads data sets of the Hugging Face Hub, or local folders in the Hub's format, with the `datasets` library.

Runs no code from a data set: `datasets` refuses loading scripts. Does not choose columns.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from postgrad.data.files import Table
from postgrad.errors import UserError, near_miss

PREFIX = "hub:"
SPLITS = {"train": ("train",), "dev": ("validation", "dev", "valid", "val"), "test": ("test",)}
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_ID = re.compile(rf"(?P<id>{_NAME}/{_NAME})(?:@(?P<revision>[^:@\s]+))?(?::(?P<config>[^:@\s]+))?")


@dataclass(frozen=True)
class HubReference:
    """A data set: a Hub id, or an absolute local folder."""

    path: str
    revision: str | None = None
    config: str | None = None

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        config = f":{self.config}" if self.config else ""
        return f"{PREFIX}{self.path}{revision}{config}"


def parse_hub(source: str, root: Path) -> HubReference | None:
    """Return the reference, or None where `source` is not written as one.

    `ORG/NAME[@REV][:CONFIG]` is a Hub id, with or without `hub:`. After `hub:` an existing folder, taken from `root`,
    comes first.

    Raises:
        UserError: it starts with `hub:` and is neither.
    """
    marked = source.startswith(PREFIX)
    plain = source.removeprefix(PREFIX)
    if marked:
        folder, _, config = plain.partition(":")
        if folder and (root / folder).is_dir():
            return HubReference(str((root / folder).resolve()), config=config or None)
    match = _ID.fullmatch(plain)
    if match:
        return HubReference(match["id"], match["revision"], match["config"])
    if marked:
        raise UserError(
            f"'{source}' is neither a data set of the Hub nor a folder that exists. Expected hub:ORG/NAME, "
            f"hub:ORG/NAME@REVISION:CONFIG, or hub:FOLDER."
        )
    return None


def read_hub(reference: HubReference, part: str) -> Table:
    """Read the split of a data set that stands for a part (train, dev, test). Class numbers become class names.

    Raises:
        UserError: the data set cannot be reached or read, or has no such split.
    """
    splits = _load(reference)
    found = next((name for name in SPLITS[part] if name in splits), None)
    if found is None:
        raise UserError(
            f"{reference} has no {part} split ({' or '.join(SPLITS[part])} was expected).{near_miss(part, splits)} "
            f"Its splits: {', '.join(splits)}. Leave '{part}' out of the task, or name a file."
        )
    rows = splits[found]
    names = {column: feature.names for column, feature in rows.features.items() if hasattr(feature, "names")}
    records = tuple((number, _named(row, names)) for number, row in enumerate(rows, start=1))
    return Table(f"{reference} ({found})", tuple(rows.column_names), records, unit="row")


def _named(row: dict[str, Any], names: dict[str, list[str]]) -> dict[str, Any]:
    """Replace class numbers by names. -1 is the Hub's mark for a hidden label and becomes an empty cell."""
    classes = {
        column: of_column[row[column]] if row[column] is not None and row[column] >= 0 else None
        for column, of_column in names.items()
    }
    return {**row, **classes}


def _load(reference: HubReference) -> Any:
    try:
        import datasets
    except ModuleNotFoundError as missing:
        raise UserError(
            f"{reference} needs the library 'datasets', which is not installed. "
            f"Install it with: pip install 'postgrad[train]', or name a local file."
        ) from missing
    folder = reference.path if Path(reference.path).is_absolute() else _download(reference)
    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(folder, name=reference.config)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as wrong:
        raise UserError(
            f"{reference} cannot be loaded: {_first_line(wrong)}. Check the configuration after ':', and that the data "
            f"set holds data files (parquet, csv, JSON lines); or name a local file."
        ) from wrong


def _download(reference: HubReference) -> str:
    """Fetch the repository, or find it in the cache: without a network `load_dataset` alone retries for half a minute.

    Uses the cache folder of the `huggingface_hub` library ($HF_HOME).
    """
    from httpx2 import HTTPError
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return snapshot_download(
            reference.path,
            repo_type="dataset",
            revision=reference.revision,
            cache_dir=os.environ.get("HF_HUB_CACHE", constants.HF_HUB_CACHE),
        )
    except LocalEntryNotFoundError as offline:
        raise UserError(
            f"{reference} cannot be reached, and no copy of it is in the cache: {_first_line(offline)}. Connect to the "
            f"internet once, or download the data set and name its folder (hub:FOLDER) or its file."
        ) from offline
    except (HTTPError, OSError, ValueError) as wrong:
        raise UserError(
            f"{reference} cannot be downloaded: {_first_line(wrong)}. Check the id and the revision after '@'; a "
            f"private data set needs `hf auth login`."
        ) from wrong


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")
