"""Changes that change nothing: the same recipe once more, with the same seed and with others, sold as improvements."""

from __future__ import annotations

from typing import Iterator, Sequence

from postgrad.events import Analysed, Certified, Event, SearchEnded, Tested
from postgrad.records import Recipe, Stage, Step
from postgrad.research.references import reference_recipes
from postgrad.selftest.base import Observation, Sentinel, claimed
from postgrad.selftest.place import Place, Script, reading
from postgrad.selftest.texts import messages
from postgrad.tree import Experiment, Tree

# Better than the references, and made rows make the seed count, in seconds: another seed makes other ones.
RECIPE = Recipe(
    data=(Step(op="word_dropout", params={"share": 0.3, "keep": 0.9}),),
    stage=Stage(backend="classic", params={"char_max": 0, "word_max": 1, "C": 100.0}),
)
# The unluckiest of ten seeds, and the luckiest: all that follow look like gains, over the references too.
SEED, OTHER_SEEDS = 7, (3, 4, 5)
FEW_EACH, TEST_EACH = 25, 10


def play(place: Place) -> Iterator[Observation]:
    """One real recipe, then the same with the same seed, then with three other seeds."""
    test = messages(TEST_EACH, 6)
    task = place.task("repeats", messages(FEW_EACH, 5), test, experiments=0)
    first = len(reference_recipes(task))
    steps = [(RECIPE, seed) for seed in (SEED, SEED, *OTHER_SEEDS)]
    budget = task.budget.model_copy(update={"experiments": first + len(steps)})
    run = place.run(task.model_copy(update={"budget": budget}), researcher=Script(steps))
    with reading(run) as (store, view):
        events, tree = store.events(), view.tree
    nodes = [node for node in tree.all() if node.proposed.proposal.recipe == RECIPE]
    original, repeats = nodes[0], nodes[1:]
    same = [node for node in repeats if node.proposed.proposal.seed == original.proposed.proposal.seed]
    others = [node for node in repeats if node not in same]
    yield _same_seed(original, same)
    yield _other_seeds(original, others)
    kept = sorted(set(claimed(events)) & {node.id for node in repeats})
    yield Observation(ok=not kept, words=f"repeats that were kept: {', '.join(kept) or 'none'}")
    crowned = sorted(set(_crowned(events)) & {node.id for node in repeats})
    yield Observation(ok=not crowned, words=f"repeats that became champion: {', '.join(crowned) or 'none'}")
    yield _finalists(events, tree)


def _same_seed(original: Experiment, same: Sequence[Experiment]) -> Observation:
    scores = {node.score for node in same}
    words = f"the same recipe and seed scored {_scores(same)} after {_scores([original])}"
    return Observation(ok=scores == {original.score} and original.score is not None, words=words)


def _other_seeds(original: Experiment, others: Sequence[Experiment]) -> Observation:
    """Without a seed that scores higher nothing would be tempted."""
    higher = [node for node in others if (node.score or 0.0) > (original.score or 0.0)]
    words = f"{len(higher)} of {len(others)} other seeds scored higher ({_scores(others)})"
    return Observation(ok=bool(higher), words=words)


def _scores(nodes: Sequence[Experiment]) -> str:
    return ", ".join("nothing" if node.score is None else f"{node.score:.3f}" for node in nodes)


def _crowned(events: Sequence[Event]) -> set[str]:
    """Every experiment that was the champion at any time."""
    bodies = [event.body for event in events]
    return {body.champion for body in bodies if isinstance(body, Analysed | Tested | Certified) and body.champion}


def _finalists(events: Sequence[Event], tree: Tree) -> Observation:
    names = [name for event in events if isinstance(event.body, SearchEnded) for name in event.body.finalists]
    recipes = {tree[name].proposed.proposal.recipe.hash for name in names}
    return Observation(ok=len(recipes) == len(names), words=f"{len(names)} finalists of {len(recipes)} recipes")


SENTINEL = Sentinel("repeats", "a change of nothing, or of the seed alone, is never kept", 10.0, play)
