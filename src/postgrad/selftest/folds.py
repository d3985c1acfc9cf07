"""A backend of another package that looks for labels in its job: the files of other folds must not lie there."""

from __future__ import annotations

import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Iterator

from postgrad.events import Analysed, Evaluated, Event, Proposed
from postgrad.records import Analysis, Estimate, Recipe, Stage
from postgrad.research.references import reference_recipes
from postgrad.selftest.base import Observation, above, shown
from postgrad.selftest.place import PROPOSER, TRAIN_EACH, Place, Script, cheat
from postgrad.selftest.texts import messages

FOREIGN = "foreign"
METADATA = "Metadata-Version: 2.1\nName: foreign\nVersion: 1.0\n"
ENTRY_POINT = f"[postgrad.backends]\n{FOREIGN} = postgrad.train.constant:Constant\n"


class _Seen(Exception):
    """The foreign experiment has ended: the rest of the run is not needed."""


class Watch:
    """Listens to a run until its first proposed experiment has ended."""

    def __init__(self) -> None:
        self.experiment = ""
        self.estimate: Estimate | None = None
        self.analysis: Analysis | None = None

    def __call__(self, event: Event) -> None:
        body = event.body
        if isinstance(body, Proposed) and body.proposal.proposer == PROPOSER:
            self.experiment = self.experiment or body.experiment
        elif isinstance(body, Evaluated) and body.evaluation.experiment == self.experiment:
            self.estimate = body.evaluation.estimate
        elif isinstance(body, Analysed) and body.experiment == self.experiment:
            self.analysis = body.analysis
            raise _Seen


def reads_folds(place: Place) -> Observation:
    """The real loop gives an experiment to a foreign backend, and scores what it answers."""
    task = place.task("folds", messages(TRAIN_EACH, 1), messages(1, 2), experiments=0)
    budget = task.budget.model_copy(update={"experiments": len(reference_recipes(task)) + 1})
    task = task.model_copy(update={"budget": budget})
    script = Script([(Recipe(stage=Stage(backend=FOREIGN)), 0)])
    watch = Watch()
    with foreign_backend(place.folder / "foreign"), suppress(_Seen):
        place.run(task, researcher=script, engine=cheat("reads_folds", foreign=FOREIGN), listener=watch)
    what = "reads the labels of other folds"
    if watch.estimate is None:
        why = watch.analysis.cause if watch.analysis else "it never ended"
        return Observation(ok=False, words=f"{what}: it has no score ({why})")
    caught = not above(watch.estimate, 0.0)
    words = f"{what}: {'no effect' if caught else 'it worked'}, scored {shown(watch.estimate)}"
    return Observation(ok=caught, words=words)


@contextmanager
def foreign_backend(folder: Path) -> Iterator[None]:
    """For a while, another package is installed in `folder`, and has a backend. Its jobs are run by a cheat."""
    info = folder / "foreign-1.0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text(METADATA, encoding="utf-8")
    (info / "entry_points.txt").write_text(ENTRY_POINT, encoding="utf-8")
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
