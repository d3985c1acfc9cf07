"""What `postgrad bench search` plays on: the public protocol of a landscape, and landscapes by name.

A landscape knows the true value, the cost and the noise of every recipe; a search sees what `train` returns and nothing
else. The families that come with the project are in `landscapes_families.py`; one of your own is named as
`package.module:Name` and is played, tabled and drawn in the same way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable, Container, Protocol

from postgrad.errors import UserError
from postgrad.records import DataSpec, Failure, Recipe, TaskSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TASK = TaskSpec(
    name="simulated",
    objective="Tell what is asked",
    data=DataSpec(train="none.csv", out_of_scope="oos"),
    metric="accuracy",
    base_models=("simulated/first", "simulated/second"),
)


@dataclass(frozen=True)
class Trained:
    """What one training answers, item by item; the mean is its score, higher is better.

    Attributes:
        search: (N,) values of the search items.
        select: (M,) values of the select items. Both are the same items for every recipe of a landscape.
        accepted: share of the search items that are out of scope and were answered; None where the landscape knows no
            causes of wrong answers.
    """

    search: NDArray[np.float64]
    select: NDArray[np.float64]
    accepted: float | None = None


class Landscape(Protocol):
    """One simulated world. Made with its seed alone: `Name(seed)`. Inherit it to take over what has a default here.

    Everything is decided by the landscape's seed, the recipe's hash and the seed of the training. `task` is what the
    researcher is asked about: its base models, and whether there are questions to reject, decide which recipes it
    proposes. An attribute on the class may be shared by all seeds.

    Attributes:
        seedless: backends whose trainings do not depend on a seed, as the referee knows it of the real ones.
        rungs: fractions of a training, in (0, 1), that `train_part` can stop at; none by default.
        pool: hashes of the recipes that can be trained, where `admit` leads to some only; a run ends when all were
            tried.
    """

    task: TaskSpec = TASK
    seedless: frozenset[str] = frozenset()
    rungs: tuple[float, ...] = ()
    pool: frozenset[str] = frozenset()

    def __init__(self, seed: int) -> None: ...

    def truth(self, recipe: Recipe) -> float:
        """The score on infinitely many items, in the mean over training seeds."""
        ...

    def cost_s(self, recipe: Recipe) -> float:
        """Seconds of one training, failed or not."""
        ...

    def train(self, recipe: Recipe, seed: int) -> Trained | Failure:
        """One training."""
        ...

    def train_part(self, recipe: Recipe, seed: int, rung: float) -> Trained | Failure:
        """The same training, stopped after this fraction of it: its score is biased and tells something of the end."""
        return self.train(recipe, seed)

    def admit(self, recipe: Recipe, taken: Container[str], near: bool = False) -> Recipe | None:
        """The recipe that is trained in place of this one; None where there is none. Every recipe, by default.

        Args:
            taken: hashes of the recipes that a run has tried.
            near: any recipe will do that is not taken, the nearest first.
        """
        return recipe

    def best(self) -> float | None:
        """The best reachable true value where it is known; None has it searched for (`landscapes_oracle.py`)."""
        return None


LANDSCAPES = {
    name: f"postgrad.bench.landscapes_families:{attribute}"
    for name, attribute in {
        "additive": "Additive",
        "interacting": "Interacting",
        "rugged": "Rugged",
        "deceptive": "Deceptive",
        "mostly_noise": "MostlyNoise",
        "expensive": "Expensive",
        "failing": "Failing",
        "heteroscedastic": "Heteroscedastic",
        "kindred": "Kindred",
    }.items()
}

#: The same, of real recipes on real data; not played unless they are named.
RECORDED = {
    f"recorded_{attribute.lower()}": f"postgrad.bench.recorded:{attribute}"
    for attribute in ("SOFMattress", "Curekart", "Banking77", "SST2")
}


def landscape(name: str) -> Callable[[int], Landscape]:
    """What makes a landscape of its seed, by its name or by `package.module:Name`.

    Raises:
        UserError: there is no such landscape.
    """
    from importlib import import_module

    module, _, attribute = (LANDSCAPES | RECORDED).get(name, name).partition(":")
    try:
        found: Callable[[int], Landscape] = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as problem:
        known = ", ".join([*LANDSCAPES, *RECORDED])
        raise UserError(
            f"There is no landscape '{name}' ({problem}). Known: {known}; or package.module:Name of your own."
        ) from problem
    return found
