"""The contract of a search policy, as tests. Give it your policy and it says whether the loop can use it.

In a test file of your own package::

    class TestMyPolicy(PolicyContract):
        policy = MyPolicy()

It needs pytest as the runner only. It does not judge whether the policy finds good models.
"""

from __future__ import annotations

from functools import cache, cached_property
from random import Random
from typing import Iterator, Sequence

from postgrad.admission import refusal
from postgrad.budget import Remaining
from postgrad.records import Choice, Move, Recipe, Record, TaskSpec
from postgrad.research.binding import bound
from postgrad.research.space import RecipeSpace
from postgrad.search.base import Policy
from postgrad.testing.researcher import REJECTING
from postgrad.testing.simulation import nominal_s
from postgrad.testing.trees import Ended, Node, interleaved, tree_of
from postgrad.tree import State, Tree

SEEDS = range(40)
MOST_RECIPES = 60
PLENTY = Remaining(wall_s=600.0, experiments=50, fraction=0.8)
ON_A_SCORED = {Move.IMPROVE, Move.TUNE, Move.COMBINE, Move.ABLATE, Move.REPLICATE}


def references(state: Ended = "done") -> list[Node]:
    """What every run begins with."""
    return [
        Node("e0000", score=0.02, kind="reference.constant", state=state),
        Node("e0001", score=0.50, kind="reference.classic", state=state),
        Node("e0002", score=0.55, kind="reference.base_model", state=state),
    ]


@cache
def _recipes(count: int) -> tuple[Recipe, ...]:
    """Recipes of the whole space."""
    space, rng = RecipeSpace(REJECTING), Random(0)
    return tuple(space.decode(space.sample(rng)) for _ in range(count))


def grown(seed: int, size: int) -> Tree:
    """A tree of `size` experiments in every state, grown by chance on the references."""
    return tree_of(grown_nodes(seed, size))


def grown_nodes(seed: int, size: int) -> list[Node]:
    """The experiments of `grown`."""
    rng = Random(seed)
    nodes = references()
    for index in range(len(nodes), size):
        state: Ended = rng.choice(("done", "done", "done", "failed", "raced", "unscored"))
        if index > size - 4:
            state = "pending"
        parents = [node for node in nodes if node.state == "done"]
        broken = [node for node in nodes if node.state == "failed"]
        parent, move = rng.choice(parents), Move.IMPROVE
        if broken and rng.random() < 0.3:
            parent, move = rng.choice(broken), Move.REPAIR
        root = rng.random() < 0.2
        nodes.append(
            Node(
                f"e{index:04d}",
                parent=None if root else parent.id,
                score=round(rng.uniform(0.3, 0.8), 3),
                state=state,
                kind="draft.classic" if root else "data.typos",
                move=None if root else move,
                recipe=_recipes(MOST_RECIPES)[index % MOST_RECIPES],
            )
        )
    return nodes


def why_illegal(tree: Tree, choice: Choice) -> str | None:
    """What is wrong with a choice, or None."""
    if choice.move is Move.STOP:
        return "stops although there is budget"
    if choice.recipe is not None:
        if choice.move in (Move.REPAIR, Move.REPLICATE):
            return f"names the recipe of a {choice.move}"
        if tree.has_tried(choice.recipe):
            return "names a recipe that is in the tree"
    if choice.move is Move.DRAFT:
        return None if choice.parent is None else "a draft has no parent"
    if choice.parent is None or choice.parent not in tree.experiments:
        return f"{choice.move} needs a parent that is in the tree"
    node = tree[choice.parent]
    if choice.move is Move.REPAIR:
        return None if node.state is State.FAILED else f"repairs {node.id}, which is {node.state}"
    if choice.move in ON_A_SCORED and node.score is None:
        return f"{choice.move} of {node.id}, which is {node.state}"
    if choice.move is Move.ABLATE and node.parent is None:
        return f"ablates the root {node.id}"
    if choice.move is Move.COMBINE:
        other = tree.experiments.get(choice.other or "")
        if other is None or other.score is None or other.id == node.id:
            return f"combines {node.id} with {choice.other}"
    return None


class PolicyContract:
    """Inherit, set `policy`, run pytest. `params` holds settings that are not the policy's defaults; a slow policy may
    be asked with fewer `seeds`. A policy that names recipes does so in the space of `task`."""

    policy: Policy
    params: dict[str, object] = {}
    seeds: Sequence[int] = SEEDS
    task: TaskSpec = REJECTING

    @cached_property
    def asked(self) -> Policy:
        return bound(self.policy, self.task, nominal_s)

    def settings(self) -> Record:
        """The validated settings."""
        return self.policy.Params.model_validate(self.params)

    def choose(self, tree: Tree, seed: int, remaining: Remaining = PLENTY) -> Choice:
        return self.asked.choose(tree, remaining, Random(seed), self.settings())

    def trees(self) -> Iterator[Tree]:
        """Trees at the beginning, in the middle, and in trouble."""
        yield Tree()
        for state in ("done", "pending", "failed", "raced", "unscored"):
            nodes: list[Node] = references(state)
            yield tree_of(nodes)
            drafts = [Node(f"e{i:04d}", state=state, score=0.4 + i / 100) for i in range(3, 12)]
            yield tree_of([*nodes, *drafts])
            yield tree_of([*references(), *drafts])
        for seed in range(8):
            yield grown(seed, 10 + 5 * seed)

    def test_choices_are_legal(self) -> None:
        for number, tree in enumerate(self.trees()):
            for seed in self.seeds:
                choice = self.choose(tree, seed)
                wrong = why_illegal(tree, choice)
                assert wrong is None, f"tree {number}, seed {seed}: {wrong}"

    def test_same_tree_and_seed_give_the_same_choice(self) -> None:
        for tree in self.trees():
            for seed in self.seeds:
                assert self.choose(tree, seed) == self.choose(tree, seed)

    def test_a_rebuilt_tree_gives_the_same_choice(self) -> None:
        for seed in self.seeds:
            again = bound(self.policy, self.task, nominal_s).choose(grown(3, 30), PLENTY, Random(seed), self.settings())
            assert self.choose(grown(3, 30), seed) == again

    def test_the_order_in_which_jobs_end_does_not_matter(self) -> None:
        nodes = grown_nodes(6, 35)
        for seed in self.seeds:
            assert self.choose(interleaved(nodes, Random(seed)), seed) == self.choose(tree_of(nodes), seed)

    def test_a_recipe_that_is_named_can_be_tried(self) -> None:
        for tree in self.trees():
            recipe = self.choose(tree, 0).recipe
            if recipe is not None:
                assert refusal(recipe, self.task) is None
                assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe

    def test_the_tree_is_untouched(self) -> None:
        for tree, again in zip(self.trees(), self.trees(), strict=True):
            self.choose(tree, 0)
            assert tree == again

    def test_an_empty_budget_stops(self) -> None:
        for tree in self.trees():
            choice = self.choose(tree, 0, Remaining(wall_s=0.0, fraction=0.0))
            assert choice.move is Move.STOP and choice.parent is None

    def test_an_empty_tree_is_drafted(self) -> None:
        assert self.choose(Tree(), 0).move is Move.DRAFT

    def test_what_is_pending_is_not_extended(self) -> None:
        whole = grown(5, 40)
        for closed in range(len(whole)):
            tree = whole.view(closed)
            for seed in self.seeds[:5]:
                choice = self.choose(tree, seed)
                assert why_illegal(tree, choice) is None
