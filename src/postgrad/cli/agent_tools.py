"""What a coding agent may ask of a run, and order: the same verbs as a person's, as plain functions with JSON answers.

It reads the store and writes to the mailbox. No answer holds an item, a label or a score of the select or sealed split.
"""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

from postgrad.certify import affordable_s
from postgrad.cli.orders import login, order_document, wait_for
from postgrad.cli.output import plain
from postgrad.cli.reading import experiment_id
from postgrad.cli.runs import describe
from postgrad.engines.local import LocalEngine
from postgrad.errors import UserError
from postgrad.events import DataPrepared, current
from postgrad.execute.executor import Executor
from postgrad.people.ask import Asked, asked, wish_of
from postgrad.people.gate import Gate
from postgrad.people.mailbox import new_order, post
from postgrad.records import Approve, Choice, Move, Reject, Wish
from postgrad.research.base import Context
from postgrad.research.brief import Brief
from postgrad.research.context import MOST_TOKENS, brief
from postgrad.research.context import lessons as lines_of
from postgrad.research.earlier import told
from postgrad.research.ideas import Ask
from postgrad.research.tally import tally
from postgrad.scripts.asking import subject_of
from postgrad.scripts.executor import ScriptExecutor
from postgrad.scripts.history import diff_of, is_script
from postgrad.scripts.researcher import ScriptResearcher
from postgrad.scripts.session import ScriptSession
from postgrad.scripts.telling import brief as brief_of_files
from postgrad.session import Session, run_started
from postgrad.store.sqlite import SqliteStore
from postgrad.tree import Experiment, Tree

Answer = dict[str, Any]


class Tools:
    """The tools for one run."""

    def __init__(self, folder: Path, who: str | None = None) -> None:
        self.folder, self.who = folder, who or f"agent of {login()}"

    def _now(self) -> Asked:
        with SqliteStore.open(self.folder, write=False) as store:
            return asked(store.events())

    # --- reading --------------------------------------------------------------------------------------------------

    def context(self, experiment: str | None = None) -> Answer:
        """What is known, in at most 8,000 tokens, for a change of one experiment or for a new start. What people
        ruled out is not listed as open; `closed` says where they closed the whole branch, and who did."""
        with SqliteStore.open(self.folder, write=False) as store:
            session = _looking(store)
            if session.prepared is None:
                raise UserError("The run is not prepared yet. Ask again in a moment.")
            gate, tree = Gate(session.standing), session.tree
            parent = experiment_id(experiment, tree) if experiment else None
            context = Context(
                tree=gate.view(tree),
                rng=Random(0),
                index=len(tree),
                affordable_s=affordable_s(session),
                nominal_s=lambda recipe: session.nominal_s(recipe, session.plan.search),
                remembered=session.remembered,
                remaining=session.remaining(),
                card=session.prepared.card,
                barred=gate.barred,
            )
            move = Move.DRAFT if parent is None else Move.IMPROVE
            found = _told(session, Ask(session.task, Choice(parent=parent, move=move), context))
        rule = gate.closed(parent, tree)
        closed = {"closed": f"{rule.said}: {rule.order.by} decided that"} if rule is not None else {}
        return {"text": found.text, "tokens": found.tokens, **closed}

    def status(self) -> Answer:
        """Where the run stands."""
        now, line = self._now(), describe(self.folder)
        return {
            "run": line.run,
            "state": line.state,
            "search_ended": now.ended,
            "metric": line.metric,
            "experiments": line.experiments,
            "champion": now.tree.champion,
            "champion_search_score": now.tree[now.tree.champion].score if now.tree.champion else None,
            "waits_for": now.waits,
            "waiting_for_approval": [node.id for node in now.tree.waiting()],
            "under_way": [node.id for node in now.tree.pending() if not node.waits],
            "paused_by": now.standing.paused.by if now.standing.paused else None,
            "granted": plain(now.ledger.granted),
            "spent": plain(now.ledger.spent),
            "expected": plain(line.expected),
        }

    def result(self, experiment: str) -> Answer:
        """What one experiment was, and how it came out on the search split."""
        tree = self._now().tree
        node = tree[experiment_id(experiment, tree)]
        proposal, analysis = node.proposed.proposal, node.analysis
        return {
            "experiment": node.id,
            "parent": node.parent,
            "kind": proposal.kind,
            "change": proposal.change,
            "hypothesis": proposal.hypothesis,
            "recipe": plain(proposal.recipe),
            "state": node.state.value,
            "waits": node.proposed.asks if node.waits else None,
            "verdict": analysis.verdict if analysis else None,
            "cause": analysis.cause if analysis else None,
            "search_score": plain(node.score),
            "search_estimate": plain(node.evaluation.estimate) if node.evaluation else None,
            "failure": plain(node.failure),
            "cost_s": node.cost_s,
            **self._diff(node, tree),
        }

    def _diff(self, node: Experiment, tree: Tree) -> Answer:
        """What an experiment of a script changed in its files: text from outside, for a screen."""
        recipe = node.proposed.proposal.recipe
        if not is_script(recipe):
            return {}
        before = tree[node.parent].proposed.proposal.recipe if node.parent is not None else None
        return {"diff": diff_of(self.folder, self.folder.name, before, recipe)}

    def lessons(self) -> Answer:
        """What the run has learnt, a line for each kind of change, with the experiments that say it, and what earlier
        runs had."""
        with SqliteStore.open(self.folder, write=False) as store:
            events = store.events()
        prepared = current(events).get("data_prepared")
        remembered = prepared.remembered if isinstance(prepared, DataPrepared) else None
        seen = tally(asked(events).tree)
        return {"lessons": lines_of(seen), "earlier_runs": told(remembered.lessons, seen) if remembered else []}

    # --- ordering -------------------------------------------------------------------------------------------------

    def propose(self, idea: dict[str, Any]) -> Answer:
        """Put an idea in: it is proposed next, and waits for a person where the task wants that."""
        wish = wish_of(idea, None, "idea")
        on = experiment_id(wish.experiment, self._now().tree) if wish.experiment else None
        return self._give(wish.model_copy(update={"asks": True, "experiment": on}))

    def approve(self, experiment: str) -> Answer:
        """Let a proposal that waits be tried."""
        return self._give(Approve(experiment=experiment_id(experiment, self._now().tree)))

    def reject(self, experiment: str, reason: str) -> Answer:
        """Do not try a proposal that waits, nor its kind again."""
        if not reason.strip():
            raise UserError("A rejection needs a reason: the search learns from it.")
        return self._give(Reject(experiment=experiment_id(experiment, self._now().tree)), reason)

    def _give(self, wish: Wish, reason: str = "") -> Answer:
        order = new_order(wish, self.who, reason)
        refused = self._now().decided(order)
        if not refused.took_effect:
            raise UserError(refused.said)
        post(self.folder, order)
        with SqliteStore.open(self.folder, write=False) as store:
            return order_document(order, wait_for(store, order, self.folder))


def _looking(store: SqliteStore) -> Session:
    """A session that says what things cost: nothing is started, nothing appended, and no file of the run changed."""
    scratch, engine = store.folder / "scratch", LocalEngine()
    script = run_started(store).task.script
    if script is not None:
        executor = ScriptExecutor(engine, store.artifacts, scratch, script)
        return ScriptSession(store, executor, lambda event: None)
    return Session(store, Executor(engine, store.artifacts, scratch), lambda event: None)


def _told(session: Session, ask: Ask) -> Brief:
    """What a researcher of the run would be told."""
    if not isinstance(session, ScriptSession):
        return brief(ask)
    if not ask.tree.all():
        raise UserError("The source is not measured yet, so there is nothing to change. Ask again in a moment.")
    subject = subject_of(session, ScriptResearcher(session), ask, mends=False)
    return brief_of_files(ask, subject, session.workspace, MOST_TOKENS)
