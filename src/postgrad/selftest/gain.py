"""A real gain: a loop that never keeps anything would pass every other sentinel."""

from __future__ import annotations

from random import Random
from typing import Iterator

from postgrad.evaluate.statistics.judge import REPLICATE_FROM
from postgrad.events import Analysed, Event
from postgrad.loop import Control
from postgrad.records import Recipe, Stage
from postgrad.report.view import RunView
from postgrad.research.references import reference_recipes
from postgrad.selftest.base import Observation, Sentinel, claimed
from postgrad.selftest.place import PROPOSER, Place, Script, reading
from postgrad.selftest.texts import FILLERS, Example

# What gives these texts away is whether the words around "then" are the same: three words in a row. Every pair of words
# is as frequent under one label as under the other, so the references, which count pairs, learn nothing.
RECIPE = Recipe(stage=Stage(backend="classic", params={"word_max": 3, "char_max": 0, "min_df": 5}))
TRAIN, DEV, TEST = 160, 160, 120
# So many proposals after it are waited for.
PATIENCE = 3


def echoes(count: int, seed: int) -> list[Example]:
    """So many texts, half of which repeat a word around "then": (text, "same" or "other")."""
    rng = Random(seed)
    return [_echo(number % 2 == 0, rng) for number in range(count)]


def _echo(same: bool, rng: Random) -> Example:
    first = rng.choice(("left", "right"))
    second = first if same else {"left": "right", "right": "left"}[first]
    words = [word for word in FILLERS.split() if word not in ("left", "right")]
    before, after = rng.sample(words, 3), rng.sample(words, 3)
    return " ".join([*before, first, "then", second, *after]), "same" if same else "other"


def play(place: Place) -> Iterator[Observation]:
    """One recipe that counts three words in a row, among references that cannot."""
    task = place.task("gain", echoes(TRAIN, 11), echoes(TEST, 13), dev=echoes(DEV, 12), experiments=REPLICATE_FROM)
    control = Control()

    def enough(event: Event) -> None:
        """End the search when something was kept, or nothing will be."""
        ended.extend([event] if isinstance(event.body, Analysed) else [])
        control.finish = bool(claimed([event])) or len(ended) >= len(reference_recipes(task)) + PATIENCE

    ended: list[Event] = []
    run = place.run(task, researcher=Script([(RECIPE, 1)]), listener=enough, control=control)
    with reading(run) as (store, view):
        events = store.events()
    better = next(node for node in view.tree.all() if node.proposed.proposal.proposer == PROPOSER)
    scores = [node.score or 0.0 for node in view.tree.all() if node.proposed.proposal.proposer == "reference"]
    words = f"references scored at most {max(scores):.3f}, the better recipe {better.score or 0.0:.3f}"
    yield Observation(ok=(better.score or 0.0) > 0.5 > max(scores), words=words)
    yield Observation(ok=claimed(events) == (better.id,), words=f"kept: {', '.join(claimed(events)) or 'nothing'}")
    yield _delivered(view, better.id)


def _delivered(view: RunView, better: str) -> Observation:
    """What the sealed labels say, and what the run says of it."""
    assert view.sealed is not None and view.certified is not None
    gap = view.sealed.difference
    ok = view.certified.champion == better and view.sealed.refused is None and gap.low > 0
    words = f"champion {view.certified.champion}, sealed gain {gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"
    return Observation(ok=ok, words=words)


SENTINEL = Sentinel("gain", "a recipe that is truly better is kept, and shown on sealed labels", 15.0, play)
