"""The report of a run: one self-contained page, the same as Markdown, and the model card."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Sequence

from postgrad.data.text import visible

if TYPE_CHECKING:
    from postgrad.report.view import RunView
    from postgrad.store.sqlite import SqliteStore

PAGE = "report.html"
TEXT = "report.md"


def read_view(store: SqliteStore) -> RunView:
    """Read a run off its store. Of the row files only the one of the search split is opened."""
    from postgrad.evaluate.splits import SplitPlan, load_rows
    from postgrad.events import DataPrepared
    from postgrad.report.view import build_view

    events = store.events()
    prepared = next((event.body for event in events if isinstance(event.body, DataPrepared)), None)
    read = store.artifacts.read
    plan = SplitPlan.model_validate_json(read(prepared.plan)) if prepared else None
    texts = {row.id: row.text for row in load_rows(read(plan.rows["search"]))} if plan and plan.rows else {}
    return build_view(events, texts, plan=plan, model_dir=store.folder / "model", report=store.folder / PAGE)


def write_report(view: RunView, folder: Path, why: Sequence[str] = ()) -> Path:
    """Write the page and the Markdown to `folder`; return the path of the page. What was there is replaced.

    Args:
        why: what the bad cases are due to (`badcases.why_it_errs`), a line each.
    """
    from postgrad.report.html import html_report
    from postgrad.report.markdown import markdown_report

    _replace(folder / TEXT, markdown_report(view, why))
    _replace(folder / PAGE, html_report(view, why))
    return folder / PAGE


def _replace(path: Path, text: str) -> None:
    """Nobody who reads the file meanwhile sees half of it."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(visible(text), encoding="utf-8")
    os.replace(beside, path)
