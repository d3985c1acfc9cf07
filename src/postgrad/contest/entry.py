"""One entry into a contest, from the folder to `final_model`. What was killed goes on when called again.

The order is what makes it safe: the base lies in `final_model` before anything else is tried, and the champion's
weights take its place only after the sealed read. Whatever fails on the way leaves the base there.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Protocol

from postgrad.budget import merge
from postgrad.contest.clock import timer_deadline, writing_s
from postgrad.contest.evaluator import Score, score
from postgrad.contest.folder import FINAL_MODEL, RESULT, protected, read_contest, touched
from postgrad.contest.rows import checked_task
from postgrad.contest.state import State, read_state, write_state
from postgrad.contest.verdict import Verdict, only_language_models, verdict_of
from postgrad.contest.weights import problems_of, put_base, put_champion, recover
from postgrad.errors import PostgradError, UserError
from postgrad.records import Budget, TaskSpec
from postgrad.runner import resume_event, start_run
from postgrad.session import Session, run_started
from postgrad.store.sqlite import SqliteStore
from postgrad.train.models import absolute_reference, model_hash, model_kind, resolve_model

BASE_SHARE = 0.15
SHORTEST_RUN_S = 20.0
EVALUATION_ROOM = 1.3


class Drive(Protocol):
    """Brings a run to its end by a Unix time, and says what `then` makes of it before it is closed.

    Raises:
        OutOfTime: that time came first.
    """

    def __call__(self, store: SqliteStore, then: Callable[[Session], Verdict], until: float, /) -> Verdict: ...


class OutOfTime(PostgradError):
    """The run did not end in time."""


@dataclass(frozen=True)
class Order:
    """What the person asks for.

    Attributes:
        task: how to train; its base models are replaced by the contest's.
        base_model: a reference or a folder; None for the task's own.
        budget: instead of what the timer says; its other limits hold besides.
        final: where the final model goes; None for the contest's `final_model`.
        limit: examples for the evaluator, where it takes a limit.
        clean: take rows out that are copies of test data.
        passed: environment variables that the evaluator is given.
    """

    folder: Path
    task: TaskSpec
    task_file: Path
    base_model: str | None = None
    budget: Budget | None = None
    final: Path | None = None
    limit: int | None = None
    clean: bool = False
    passed: tuple[str, ...] = ()


@dataclass
class Entry:
    """An entry that is under way. `say` gets a line for each step."""

    order: Order
    drive: Drive
    say: Callable[[str], None] = lambda line: None
    now: Callable[[], float] = time.time
    state: State = field(init=False)

    def __post_init__(self) -> None:
        order = self.order
        self.reference = _reference(order)
        self.base = resolve_model(self.reference)
        self.final = (order.final or order.folder / FINAL_MODEL).absolute()
        self.contest = read_contest(order.folder, [self.final, self.base, order.task_file])

    def enter(self) -> State:
        """Do all that is owed; the record of it.

        Raises:
            UserError: the folder, the base model or the data cannot be used, or protected files were changed.
            PostgradError: protected files were changed while this went on.
        """
        self._begin()
        self._place_base()
        if not self.state.done:
            self._score_base()
            self._run()
            self._place_champion()
            self._score_final()
        found = tuple(touched(self.state.protected, self.contest))
        self._record(touched=found, done=True)
        if found:
            raise PostgradError(
                f"Protected files are not as they were: {'; '.join(found)}. The rules forbid it, and the entry would "
                f"be given the base's score. Bring back the files and enter again without {RESULT}."
            )
        return self.state

    def _record(self, **changes: object) -> None:
        self.state = write_state(self.contest.root / RESULT, self.state.model_copy(update=changes))

    # --- the steps --------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        known = read_state(self.contest.root / RESULT)
        if known is None:
            self._first()
            return
        self.state = known
        if found := touched(known.protected, self.contest):
            raise UserError(
                f"Protected files were changed since this entry began: {'; '.join(found)}. Evaluator, templates and "
                f"test data must stay as they are. Bring them back, or move {RESULT} away to begin again."
            )
        if (known.base_model, known.final_model) != (self.reference, str(self.final)):
            raise UserError(
                f"This entry began with {known.base_model} for {known.final_model}. Give the same as then, or move "
                f"{RESULT} away to begin again."
            )
        if model_hash(self.base) != known.base_hash:
            raise UserError(f"The base model {self.reference} is not what it was when this entry began. Bring it back.")

    def _first(self) -> None:
        if model_kind(self.base) != "causal_lm":
            raise UserError(
                f"The base model {self.reference} is no causal language model. Name the contest's: --base-model"
            )
        if self.final.exists():
            raise UserError(f"{self.final} is there already, and is not of this command. Move it away first.")
        self.contest.work.mkdir(exist_ok=True)
        began = self.now()
        deadline = self._deadline(began)
        _, data = checked_task(self.contest, self.order.task, clean=self.order.clean)
        if not data["test_texts"]:
            self.say("No test data lies in or beside the folder: the rows could not be compared with any.")
        self.state = State(
            folder=str(self.contest.root),
            final_model=str(self.final),
            started=began,
            deadline=deadline,
            protected=protected(self.contest),
            base_model=self.reference,
            base_hash=model_hash(self.base),
            data=data,
            limit=self.order.limit,
        )
        self._record()

    def _deadline(self, began: float) -> float:
        """The earlier of what the person grants and what the timer says."""
        granted = self.order.budget.wall_s if self.order.budget else None
        timer = timer_deadline(self.contest, began)
        found = [each for each in (timer, None if granted is None else began + granted) if each is not None]
        if not found:
            raise UserError("The folder has no timer.sh, so say how long there is: --budget 9h30m")
        if min(found) <= began:
            raise UserError("The contest's time is over: its timer has run out.")
        return min(found)

    def _place_base(self) -> None:
        recover(self.final)
        if self.state.copy_s is not None and self.final.is_dir():
            return
        began = self.now()
        put_base(self.base, self.final)
        took = max(0.0, self.now() - began)
        self._record(copy_s=took, final_is="base", load_problems=None, final_score=None, done=False)
        self.say(f"{self.final} holds a copy of the base.")

    def _score_base(self) -> None:
        if self.state.base_score is not None or self.state.final_is != "base":
            return
        self.say("measuring the untouched base with the contest's evaluator")
        found = self._scored("base", BASE_SHARE * self._left())
        self._record(base_score=found)
        self.say(f"  {_words(found)}")

    def _run(self) -> None:
        if self.state.verdict is not None:
            return
        until = self.state.deadline - self._writing_s()
        seconds = until - self._evaluation_s() - self.now()
        if self.state.run is None and seconds < SHORTEST_RUN_S:
            why = f"{max(0.0, seconds):.0f} s were left for a run, and at least {SHORTEST_RUN_S:.0f} s are needed"
            self._record(verdict=Verdict(take=False, why=why))
            return
        store = self._store(max(SHORTEST_RUN_S, seconds))
        self.say(f"run {store.folder}")
        try:
            found = self.drive(store, lambda session: verdict_of(session, self.reference), until)
        except PostgradError as failed:
            found = Verdict(take=False, why=f"the run came to no champion: {failed}")
        self._record(verdict=found)

    def _store(self, seconds: float) -> SqliteStore:
        """The run of this entry, with `seconds` from now on."""
        wall = Budget(wall_s=seconds)
        if self.state.run is not None and Path(self.state.run).is_dir():
            store = SqliteStore.open(Path(self.state.run), write=True)
            if store.events():
                run_started(store)
                resume_event(store, Budget(wall_s=store.clock() + seconds), "the contest command was called again")
                return store
            store.close()
        task, _ = checked_task(self.contest, self.order.task, clean=self.order.clean)
        task = only_language_models(task.model_copy(update={"base_models": (self.reference,)}), self.base)
        budget = merge(self.order.budget or Budget(), wall)
        task = task.model_copy(update={"budget": budget, "memory": False})
        store = start_run(task, self.contest.work / "runs", self.order.task_file)
        self._record(run=str(store.folder))
        return store

    def _place_champion(self) -> None:
        verdict = self.state.verdict
        assert verdict is not None
        if self.state.load_problems is not None:
            return
        if verdict.take and verdict.weights is not None:
            self.say("writing the champion's weights")
            put_champion(self.base, Path(verdict.weights), self.final)
            self._record(final_is="champion", why=verdict.why)
        else:
            self._keep_base(verdict.why)
        problems = self._problems()
        if problems and self.state.final_is == "champion":
            self._keep_base(f"the champion's weights cannot be handed in: {'; '.join(problems)}")
            problems = self._problems()
        self._record(load_problems=tuple(problems))

    def _keep_base(self, why: str) -> None:
        """The base stays, or comes back; a copy that was replaced before a kill is written again."""
        if model_hash(self.final) != self.state.base_hash:
            put_base(self.base, self.final)
        self._record(final_is="base", why=why)
        self.say(f"The base stays: {why}")

    def _problems(self) -> list[str]:
        return problems_of(self.contest, self.base, self.final, max(60.0, self._writing_s()))

    def _score_final(self) -> None:
        if self.state.final_score is not None:
            return
        if self.state.final_is == "base":
            self._record(final_score=self.state.base_score)
            return
        room = self._left() - 3 * (self.state.copy_s or 0.0)
        if room < self._evaluation_s():
            return
        self.say("measuring the final model with the contest's evaluator")
        found = self._scored("final", room)
        base = self.state.base_score
        if found.value is None and base is not None and base.value is not None:
            self._keep_base(f"the contest's evaluator fails on the champion's weights: {found.error}")
            found = base
        self._record(final_score=found)

    # --- time and scores ----------------------------------------------------------------------------------------------

    def _left(self) -> float:
        return self.state.deadline - self.now()

    def _writing_s(self) -> float:
        return writing_s(self.state.deadline - self.state.started, self.state.copy_s or 0.0)

    def _evaluation_s(self) -> float:
        return EVALUATION_ROOM * self.state.base_score.seconds if self.state.base_score else 0.0

    def _scored(self, name: str, seconds: float) -> Score:
        limit, passed = self.state.limit, self.order.passed
        return score(self.contest, self.final, name, limit=limit, seconds=seconds, passed=passed)


def _words(found: Score) -> str:
    return f"{found.value:.4f} in {found.seconds:.0f} s" if found.value is not None else str(found.error)


def _reference(order: Order) -> str:
    """The base model as a reference.

    Raises:
        UserError: none is named, or there is no such model.
    """
    named = order.base_model
    if named is not None:
        folder = Path(named).expanduser()
        return absolute_reference(f"path:{named}" if folder.is_dir() else named, Path())
    if len(order.task.base_models) != 1:
        raise UserError("Name the base model of the contest: --base-model FOLDER. Only that one may be fine-tuned.")
    return order.task.base_models[0]
