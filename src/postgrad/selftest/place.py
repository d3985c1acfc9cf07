"""Where sentinels play: a folder, small tasks in it, and runs of the real loop, with real jobs and a real store."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Callable, Iterator, Sequence

from postgrad.engines.base import Engine
from postgrad.engines.local import LocalEngine
from postgrad.events import Event
from postgrad.loop import Control
from postgrad.records import Budget, Choice, DataSpec, EngineSpec, Move, Proposal, Recipe, SearchSpec, TaskSpec
from postgrad.report import read_view, write_report
from postgrad.report.view import RunView
from postgrad.research.base import Context, Researcher
from postgrad.runner import drive, opened, start_run
from postgrad.selftest.texts import Example, messages, write_csv
from postgrad.session import Session
from postgrad.store.sqlite import SqliteStore
from postgrad.testing.encoder import make_tiny_encoder

TRAIN_EACH, SMALL_EACH = 40, 5
# The order in which experiments are chosen depends on how many workers there are: the same everywhere.
ENGINE = EngineSpec(workers=2, threads=1)
PROPOSER = "sentinel"
CHEATS = Path(__file__).with_name("cheats.py")


@dataclass
class Place:
    """A folder for the work of sentinels.

    Args:
        say: called with what is going on, many times a second while jobs run.
    """

    folder: Path
    say: Callable[[str], None] = lambda phase: None

    @cached_property
    def encoder(self) -> str:
        """Reference of a tiny sentence encoder with random weights. Loads torch."""
        import transformers

        self.say("making a tiny encoder")
        logging: Any = transformers.utils.logging
        logging.disable_progress_bar()
        return f"path:{make_tiny_encoder(self.folder / 'encoder')}"

    @cached_property
    def plain(self) -> Path:
        """A finished run on true labels: the constant answer and the classic model, and 30 test messages."""
        return self.run(self.task("plain", messages(TRAIN_EACH, 1), messages(SMALL_EACH, 2), experiments=2))

    def task(
        self,
        name: str,
        train: Sequence[Example],
        test: Sequence[Example],
        *,
        dev: Sequence[Example] = (),
        experiments: int,
        encoder: bool = False,
    ) -> TaskSpec:
        """A task on these rows, with Matthews correlation as its metric: chance is 0, whatever the shares of labels.
        Without dev rows, search and select are cross-validated."""
        data = self.folder / "data" / name
        parts = {"train": train, "dev": dev, "test": test}
        files = {part: str(write_csv(data / f"{part}.csv", rows).absolute()) for part, rows in parts.items() if rows}
        return TaskSpec(
            name=name,
            objective="a sentinel of postgrad selftest",
            data=DataSpec(train=files["train"], dev=files.get("dev"), test=files["test"]),
            metric="mcc",
            base_models=(self.encoder,) if encoder else (),
            budget=Budget(experiments=experiments),
            search=SearchSpec(policy="greedy"),  # It asks the researcher for every recipe: sentinels script that.
            engine=ENGINE,
        )

    def start(self, task: TaskSpec) -> SqliteStore:
        """The store of a new run."""
        return start_run(task, self.folder / "runs")

    def run(
        self,
        task: TaskSpec,
        *,
        researcher: Researcher | None = None,
        engine: Engine | None = None,
        before: Callable[[Session], None] = lambda session: None,
        listener: Callable[[Event], None] = lambda event: None,
        control: Control | None = None,
    ) -> Path:
        """Drive a new run to its end, and write its report; its folder.

        Args:
            before: called with the session of the run before its first step.
        """
        store = self.start(task)
        with opened(store, listener, engine) as session:
            before(session)
            drive(session, control=control, tick=lambda phase, jobs: self.say(phase), researcher=researcher)
            write_report(read_view(store), store.folder)
        return store.folder


@contextmanager
def reading(folder: Path) -> Iterator[tuple[SqliteStore, RunView]]:
    """A run to be read, and the view that its report is made of."""
    with SqliteStore.open(folder, write=False) as store:
        yield store, read_view(store)


def cheat(which: str, **facts: str) -> LocalEngine:
    """The local engine with a worker that cheats: a function of `cheats.py`, and what it is told."""
    return LocalEngine((sys.executable, "-P", str(CHEATS), which, json.dumps(facts)))


class Script:
    """A researcher that proposes what it was given, one after the other; when it is through, the last one once more.

    Args:
        steps: (recipe, training seed).
    """

    def __init__(self, steps: Sequence[tuple[Recipe, int]]) -> None:
        self._steps = tuple(steps)

    def propose(self, task: TaskSpec, choice: Choice, context: Context) -> Proposal:
        """The next one. It calls itself an improvement of the first, whatever the policy asked for."""
        mine = [node.id for node in context.tree.all() if node.proposed.proposal.proposer == PROPOSER]
        recipe, seed = self._steps[min(len(mine), len(self._steps) - 1)]
        carried = Choice(parent=mine[0], move=Move.IMPROVE) if mine else Choice(parent=None, move=Move.DRAFT)
        return Proposal(
            recipe=recipe,
            kind="improve.everything" if mine else "draft.sentinel",
            hypothesis="This is much better.",
            change="everything" if mine else "a first recipe",
            expected_effect=0.5,
            refuted_by="nothing",
            proposer=PROPOSER,
            seed=seed,
            carried_out=carried,
        )
