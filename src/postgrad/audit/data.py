"""The rows that the final weights were trained on, against what the run asks."""

from __future__ import annotations

from typing import Iterator, Sequence

from postgrad import __version__
from postgrad.audit.case import AuditCheck, Case, State
from postgrad.data import OPERATORS
from postgrad.data.decontaminate import How, Match, find_neighbours, find_overlaps
from postgrad.data.steps import training_rows
from postgrad.errors import PostgradError
from postgrad.evaluate.splits import Near, UnitPlan
from postgrad.records import Row
from postgrad.train.models import model_kind

# Texts that the encoder is asked for at most: a minute or two of one core.
MOST_TEXTS = 5000
Found = tuple[AuditCheck, tuple[Match, ...]]


def data_checks(case: Case, *, encoder: bool) -> Iterator[Found]:
    """Every check of the data, each with the matches behind it."""
    rows, check = _on_record(case)
    yield check, ()
    yield _as_logged(case, rows), ()
    yield _against_sealed(case, rows if rows is not None else case.given)
    yield _given_against_files(case)
    yield _folds(case), ()
    if encoder:
        yield _neighbours(case, rows if rows is not None else case.given)


def _check(name: str, state: State, words: str, ids: Sequence[str] = ()) -> AuditCheck:
    return AuditCheck(about="data", name=name, state=state, words=words, ids=tuple(ids))


def _on_record(case: Case) -> tuple[tuple[Row, ...] | None, AuditCheck]:
    name = "training rows on record"
    try:
        rows = case.trained
    except PostgradError as problem:
        return None, _check(name, "finding", str(problem))
    if rows is None:
        words = (
            "The rows that the final weights were trained on are not on record (the run is older, or its final job did "
            f"not say). What follows is checked for the {len(case.given):,} given rows alone."
        )
        return None, _check(name, "unknown", words)
    made = len(rows) - len({row.id for row in rows} & {row.id for row in case.given})
    return rows, _check(name, "clean", f"{len(rows):,} rows, {made:,} of them made by data steps.")


def _as_logged(case: Case, rows: tuple[Row, ...] | None) -> AuditCheck:
    """The rows on record are a worker's word: work them out again from the given rows, the recipe and the seed."""
    name = "rows follow from the recipe"
    if rows is None:
        return _check(name, "unknown", "There are no rows on record to compare with.")
    if case.started.postgrad != __version__ and case.recipe.data:
        words = f"The run was made by Postgrad {case.started.postgrad}, whose data steps may be others than those here."
        return _check(name, "unknown", words)
    if not all(OPERATORS.is_own(step.op) for step in case.recipe.data):
        return _check(name, "unknown", "A data step is of another package: its code runs in the sandbox of jobs alone.")
    if case.recipe.base_model and case.base is None and case.recipe.data:
        return _check(name, "unknown", "The data steps may need the base model, and that is not at hand.")
    again, _ = training_rows(
        case.given,
        [row.text for row in (*case.rows["sealed"], *case.rows["side"])],
        case.recipe.data,
        seed=case.seed,
        out_of_scope=case.plan.out_of_scope,
        base_model=case.base,
    )
    odd = sorted({row.id for row in set(rows) ^ set(again)})
    if odd or len(rows) != len(again):
        words = (
            f"The recipe makes {len(again):,} rows of the given ones, and the final job trained on {len(rows):,}; "
            f"{len(odd):,} differ."
        )
        return _check(name, "finding", words, odd)
    return _check(name, "clean", "Worked out again from the given rows, the recipe and the seed: the very same.")


def _against_sealed(case: Case, rows: Sequence[Row]) -> Found:
    name = "sealed and guard rows are not trained on"
    protected = [*case.rows["sealed"], *case.rows["side"]]
    matches = find_overlaps(rows, protected)
    if not matches:
        words = f"No row is near one of {len(protected):,} protected rows, by any matcher."
        return _check(name, "clean", words), ()
    return _check(name, "finding", f"{_counted(matches)} near protected rows.", [m.row for m in matches]), matches


def _given_against_files(case: Case) -> Found:
    """The check of the split, made again: what files of their own hold is near no given row."""
    data, rows = case.started.task.data, case.rows
    protected = [
        *(rows["sealed"] if data.test else ()),
        *((*rows["search"], *rows["select"]) if data.dev else ()),
        *rows["side"],
    ]
    name = "given rows and rows of other files"
    if not protected:
        return _check(name, "skipped", "Nothing is asked that has a file of its own."), ()
    matches = find_overlaps(case.given, protected)
    if not matches:
        return _check(
            name, "clean", f"No given row is near one of {len(protected):,} rows of test, dev and guards."
        ), ()
    return _check(name, "finding", f"{_counted(matches)} near them.", [m.row for m in matches]), matches


def _folds(case: Case) -> AuditCheck:
    """Rows that came out of the train file: near copies are on one side of every split of it."""
    name = "search and select, apart from training"
    data, rows = case.started.task.data, case.rows
    own = [*rows["train"], *(() if data.test else rows["sealed"])]
    held_out = case.plan.mode == "holdout" and not data.dev
    own += [*rows["search"], *rows["select"]] if held_out else []
    near = Near(own)
    known = {row.id for row in own}
    torn: dict[str, None] = {}
    for unit in (*case.plan.search, *case.plan.select):
        torn |= dict.fromkeys(_torn(unit, near, known))
    if not data.test:
        sealed = UnitPlan(name="sealed", train=tuple(row.id for row in case.given), items=case.plan.sealed)
        torn |= dict.fromkeys(_torn(sealed, near, known))
    units = len(case.plan.search) + len(case.plan.select)
    if torn:
        words = f"{len(torn):,} rows were trained on in a part of {units} that asks a near copy of them."
        return _check(name, "finding", words, list(torn))
    return _check(name, "clean", f"In none of the {units} parts is a near copy of a train row asked.")


def _torn(unit: UnitPlan, near: Near, known: set[str]) -> list[str]:
    """Train rows of a unit that are in the group of one of its items. Variants are left out: the check that every
    training makes of its own rows is for them."""
    asked = {near(item) for item in unit.items if item in known}
    return [row for row in unit.train if near(row) in asked]


def _neighbours(case: Case, rows: Sequence[Row]) -> Found:
    name = "neighbours under the encoder"
    if case.base is None:
        return _check(name, "skipped", "Not looked for: the recipe has no base model, or it is not at hand."), ()
    if model_kind(case.base) != "encoder":
        return _check(name, "skipped", "Not looked for: the base model is a language model, and no encoder."), ()
    protected = [*case.rows["sealed"], *case.rows["side"]]
    if len(rows) + len(protected) > MOST_TEXTS:
        return _check(name, "skipped", f"Not looked for: more than {MOST_TEXTS:,} texts."), ()
    matches = find_neighbours(rows, protected, case.base)
    if not matches:
        return _check(name, "clean", "No row is that close to a protected one."), ()
    words = (
        f"{len(matches):,} rows mean nearly the same as a protected row. Honest paraphrases do too, so none is taken "
        "out; look at them if there are many."
    )
    return _check(name, "flagged", words, [m.row for m in matches]), matches


def _counted(matches: Sequence[Match]) -> str:
    kinds: dict[How, int] = {}
    for match in matches:
        kinds[match.how] = kinds.get(match.how, 0) + 1
    total = len(matches)
    words = ", ".join(f"{count} {how}" for how, count in kinds.items())
    return f"{total:,} {'row is' if total == 1 else 'rows are'} ({words})"
