"""A run as `show` reads it: its tree, and what is behind one experiment. Everything comes from the store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Mapping

from postgrad.cli.runs import RunLine, describe, find_run
from postgrad.errors import UserError, near_miss
from postgrad.evaluate.splits import SplitPlan, load_rows
from postgrad.events import DataPrepared
from postgrad.records import Recipe, Record, Row
from postgrad.report import read_view
from postgrad.report.view import RunView
from postgrad.scripts.history import diff_of, is_script
from postgrad.store.sqlite import SqliteStore
from postgrad.tree import Experiment, Tree

CHAMPION = "champion"
TEXTS_SHOWN = 3


class BadCase(Record):
    """Search items of `truth` that were answered `predicted`, with some of their texts."""

    truth: str
    predicted: str
    count: int
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Reading:
    """One run. `rows` are the search rows by id; none before the data is prepared."""

    line: RunLine
    view: RunView
    rows: Mapping[str, Row]
    folder: Path = Path()

    def experiment(self, name: str) -> Experiment:
        """The experiment called `name`: "e0007", "e7", "7", or "champion".

        Raises:
            UserError: there is none.
        """
        tree = self.view.tree
        if name == CHAMPION and self.line.champion:
            return tree[self.line.champion]
        return tree[experiment_id(name, tree, f"The run {self.line.run}")]

    def parent_recipe(self, node: Experiment) -> Recipe | None:
        return self.view.tree[node.parent].proposed.proposal.recipe if node.parent else None

    def diff(self, node: Experiment) -> str | None:
        """What an experiment of a script changed in its files; None for other experiments."""
        recipe = node.proposed.proposal.recipe
        return diff_of(self.folder, self.line.run, self.parent_recipe(node), recipe) if is_script(recipe) else None

    def bad_cases(self, node: Experiment) -> list[BadCase]:
        """The confusions of an experiment, with texts."""
        return [
            BadCase(
                truth=pair.truth,
                predicted=pair.predicted,
                count=pair.count,
                texts=tuple(self.rows[name].text for name in pair.ids[:TEXTS_SHOWN] if name in self.rows),
            )
            for pair in (node.analysis.confusions if node.analysis else ())
        ]


def experiment_id(name: str, tree: Tree, run: str = "The run") -> str:
    """The id of an experiment called "e0007", "e7" or "7".

    Raises:
        UserError: there is none.
    """
    known = tree.experiments
    number = name.removeprefix("e")
    full = f"e{int(number):04d}" if number.isdecimal() else name
    if full in known:
        return full
    there = f"They go from {next(iter(known))} to {list(known)[-1]}." if known else "It has none yet."
    raise UserError(f"{run} has no experiment '{name}'.{near_miss(name, known)} {there}")


def read_run(runs_dir: Path, name: str) -> Reading:
    """Read a run.

    Raises:
        UserError: there is no such run, or its store cannot be read.
    """
    folder = find_run(runs_dir, name)
    with SqliteStore.open(folder, write=False) as store:
        view = read_view(store)
        prepared = next((event.body for event in store.events() if isinstance(event.body, DataPrepared)), None)
        rows: dict[str, Row] = {}
        if prepared is not None and prepared.script is None:
            plan = SplitPlan.model_validate_json(store.artifacts.read(prepared.plan))
            rows = {row.id: row for row in load_rows(store.artifacts.read(plan.rows["search"]))}
    return Reading(line=describe(folder), view=view, rows=rows, folder=folder)
