"""Recorded landscapes: what real recipes scored on real data, played as `bench search` plays a simulated one.

Only recipes that were recorded can be trained; a run is led to the nearest of them, and ends when all were tried. The
landscape's seed takes four fifths of the recorded rows and questions and says which training counts as the first. What
was answered is never made up: the third and later trainings of a recipe put folds of the recorded ones together.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, ClassVar, Container, Iterable

from postgrad.bench.landscapes import Landscape, Trained
from postgrad.bench.record_names import apart, exactly, shape
from postgrad.bench.recorded_file import Recording, Tried, recording
from postgrad.bench.simulated_parts import family
from postgrad.errors import PostgradError
from postgrad.records import Failure, Recipe
from postgrad.research import edit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# A subset of 80 % of n random rows is a random sample of 0.8 n rows, with the noise that such a sample has.
KEPT = 0.8


class Recorded(Landscape):
    """The base of the recorded landscapes: what is in `bench/landscapes/NAME.parquet`."""

    name: ClassVar[str]
    seedless = frozenset({"seedless"})

    def __init__(self, seed: int) -> None:
        import numpy as np

        self.seed = seed
        self.recording: Recording = recording(self.name)
        self.task = self.recording.task
        self.pool = frozenset(self.recording.tried)
        folds = self.recording.folds
        self.rungs = tuple(number / folds for number in range(1, folds))
        generator = np.random.default_rng([seed, int.from_bytes(blake2b(self.name.encode(), digest_size=4).digest())])
        self._order = generator.permutation(folds)
        groups, self._of_group = np.unique(self.recording.group, return_inverse=True)
        self._kept = np.isin(self._of_group, _some(len(groups), generator))
        self._asked = _some(len(self.recording.outside["select"]), generator)
        self._by_name = {exactly(tried.recipe): tried.recipe for tried in self.recording.tried.values()}
        self._by_shape: dict[str, list[Recipe]] = {}
        for recipe in self._by_name.values():
            self._by_shape.setdefault(shape(recipe), []).append(recipe)

    # --- the landscape ------------------------------------------------------------------------------------------------

    def truth(self, recipe: Recipe) -> float:
        """The mean sealed score of the recorded trainings, over all sealed questions; 0 where all of them failed."""
        return self._tried(recipe).truth

    def cost_s(self, recipe: Recipe) -> float:
        """The mean of what the folds took."""
        seconds = self._tried(recipe).fold_s
        return sum(seconds) / len(seconds)

    def family(self, recipe: Recipe) -> str:
        """Recipes that share their seed noise, as the referee of a real run groups them."""
        return family(recipe) if edit.seeded(recipe) else "seedless"

    def best(self) -> float:
        """The best true value that was recorded."""
        return max(tried.truth for tried in self.recording.tried.values())

    def train(self, recipe: Recipe, seed: int) -> Trained | Failure:
        """A recorded training: seeds 0 and 1 are the two that were recorded; with any other, each fold, and the model
        of all rows, is that of one of the two by chance."""
        return self._answers(recipe, seed, self._order)

    def train_part(self, recipe: Recipe, seed: int, rung: float) -> Trained | Failure:
        """The first folds of the same training."""
        return self._answers(recipe, seed, self._order[: max(1, round(rung * len(self._order)))])

    def admit(self, recipe: Recipe, taken: Container[str], near: bool = False) -> Recipe | None:
        """The recorded recipe that does the same; else the nearest one that is not taken and differs in numbers only,
        or with `near` in anything; None where there is none. The recipe is valid."""
        same = self._by_name.get(exactly(recipe))
        if same is not None and not (near and same.hash in taken):
            return same
        among: Iterable[Recipe] = self._by_name.values() if near else self._by_shape.get(shape(recipe), ())
        free = [other for other in among if other.hash not in taken]
        return min(free, key=lambda other: (apart(recipe, other), other.hash), default=None)

    # --- items --------------------------------------------------------------------------------------------------------

    def _tried(self, recipe: Recipe) -> Tried:
        found = self.recording.tried.get(recipe.hash)
        if found is None:
            raise PostgradError(f"Recipe {recipe.hash} is not recorded in '{self.name}'. Ask `admit` for one that is.")
        return found

    def _answers(self, recipe: Recipe, seed: int, folds: NDArray[np.int64]) -> Trained | Failure:
        import numpy as np

        tried = self._tried(recipe)
        first = self._drawn(recipe, seed, "training", len(tried.failures))
        if (failure := tried.failures[first]) is not None:
            return failure
        stood = [first] if seed < len(tried.failures) else tried.stood
        chosen = [stood[self._drawn(recipe, seed, f"fold {fold}", len(stood))] for fold in range(self.recording.folds)]
        whole = stood[self._drawn(recipe, seed, "whole", len(stood))]
        fold = self.recording.fold
        right = tried.search[np.array(chosen)[fold], np.arange(len(fold))]
        at = np.flatnonzero(self._kept & np.isin(fold, folds))
        _, group = np.unique(self._of_group[at], return_inverse=True)
        total = np.bincount(group, weights=right[at].astype(np.float64))
        # A row that is asked in several ways is one piece of evidence, as it is for the referee.
        outside = self.recording.outside["search"][at]
        return Trained(
            total * len(total) / len(at),
            tried.select[whole][self._asked].astype(np.float64),
            accepted=float((outside & (right[at] == 0)).mean()),
        )

    def _drawn(self, recipe: Recipe, seed: int, about: str, count: int) -> int:
        """One of `count`: of the recorded trainings in turn for the first seeds, else by chance."""
        if seed < count:
            return (seed + self.seed) % count
        text = f"{self.seed}/{recipe.hash}/{seed}/{about}"
        return int.from_bytes(blake2b(text.encode(), digest_size=8).digest()) % count


def _some(count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Four fifths of the numbers below `count`, in order."""
    import numpy as np

    return np.sort(generator.permutation(count)[: max(1, round(KEPT * count))])


class SOFMattress(Recorded):
    """Intents of a mattress shop (HINT3), with out-of-scope questions."""

    name = "sofmattress"


class Curekart(Recorded):
    """Intents of a health shop (HINT3), with out-of-scope questions."""

    name = "curekart"


class Banking77(Recorded):
    """Twenty intents of a bank, eight rows each."""

    name = "banking77"


class SST2(Recorded):
    """Sentiment of film reviews."""

    name = "sst2"
