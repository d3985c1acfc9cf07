"""A finished run checked backwards, from the final weights to the data and the base model that they came from.

Reads the store and the base model; trains nothing, uses no label of an evaluation split, and changes nothing. What it
says of sealed rows are their ids. It trusts the log and the hashes of artefacts, and takes nothing that a worker said
at its word where that can be worked out again.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from postgrad.audit.case import AuditCheck, open_case
from postgrad.audit.data import data_checks
from postgrad.audit.weights import EncoderDistance, lineage_checks, restored, weight_checks
from postgrad.data.decontaminate import Match
from postgrad.records import Record
from postgrad.report import TEXT, read_view
from postgrad.report.markdown import escape
from postgrad.store.sqlite import SqliteStore

Verdict = Literal["clean", "findings", "incomplete"]


class Removal(Record):
    """A given row that is in no split: of which part it was, and what it is near in which split."""

    part: str
    near: str
    match: Match


class Audit(Record):
    """What an audit found.

    Attributes:
        verdict: `findings` where a check failed; else `incomplete` where one could not be made; else `clean`.
        matches: rows that are near a protected one, as far as checks found any.
        removed: the rows that were taken out at the split, all of them.
        distances: of every encoder in the final model.
    """

    run: str
    experiment: str
    verdict: Verdict
    model: str | None
    recipe_hash: str
    base_model: str | None
    checks: tuple[AuditCheck, ...]
    matches: tuple[Match, ...]
    removed: tuple[Removal, ...]
    distances: tuple[EncoderDistance, ...]


def audit_run(store: SqliteStore, *, encoder: bool = True) -> Audit:
    """Check a run.

    Args:
        encoder: look for neighbours under the recipe's base model as well, where it is at hand. Loads torch.

    Raises:
        UserError: the run has no champion.
        PostgradError: the plan or the rows of the run are damaged.
    """
    case = open_case(store)
    data = list(data_checks(case, encoder=encoder))
    checks = [check for check, _ in data]
    distances: list[EncoderDistance] = []
    with TemporaryDirectory(prefix="postgrad-audit-") as place:
        folder = Path(place) / "model"
        if (missing := restored(case, folder)) is not None:
            checks.append(missing)
        else:
            checks += lineage_checks(case, folder, store.folder / "model")
            for check, away in weight_checks(case, folder):
                checks.append(check)
                distances += [away] if away else []
    view = read_view(store)
    checks.append(_report(store, view.contamination.words))
    return Audit(
        run=case.started.run,
        experiment=case.champion,
        verdict=_verdict(checks),
        model=case.model,
        recipe_hash=case.recipe.hash,
        base_model=case.recipe.base_model,
        checks=tuple(checks),
        matches=tuple(match for _, found in data for match in found),
        removed=tuple(Removal(part=r.part, near=r.near, match=r.match) for r in view.contamination.removed),
        distances=tuple(distances),
    )


def _verdict(checks: list[AuditCheck]) -> Verdict:
    states = {check.state for check in checks}
    return "findings" if "finding" in states else "incomplete" if "unknown" in states else "clean"


def _report(store: SqliteStore, words: str) -> AuditCheck:
    """The report in the folder says of contamination what the log says now."""
    name = "what the report says of contamination"
    path = store.folder / TEXT
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None
    if text is None or escape(words) in text:
        return AuditCheck(about="report", name=name, state="clean", words=words)
    return AuditCheck(
        about="report",
        name=name,
        state="flagged",
        words=f"The log says: {words} {TEXT} says something else. `postgrad report` writes it again.",
    )
