"""The contract of a researcher: it turns a policy's choice into a proposal. It does not run, score or save."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Callable, Mapping, Protocol, Sequence, runtime_checkable

from postgrad.budget import Remaining
from postgrad.records import Choice, DataCard, Prior, Proposal, Recipe, Remembered, Row, TaskSpec
from postgrad.tree import Tree


def itself(recipe: Recipe) -> Recipe | None:
    """Every recipe can be run as it is."""
    return recipe


def nothing(kind: str) -> bool:
    """No kind of change is barred."""
    return False


@dataclass(frozen=True)
class Context:
    """What a researcher may know when it proposes.

    Attributes:
        tree: the view that the choice was made on; its later experiments are pending.
        rng: the only source of chance.
        index: number of the experiment that is proposed.
        affordable_s: nominal seconds one experiment may cost now; None without a wall-clock budget.
        nominal_s: nominal seconds of a recipe over the search units. Deterministic.
        remembered: what finished runs taught; `learning.prior_of` reads its priors.
        admit: the recipe that will be run in place of this one, or None where it cannot be run. Recipes that are in
            the tree stay what they are.
        nearest: the same for a recipe that a policy named by itself: whatever is nearest to it, None where nothing is
            left.
        remaining: what is left of the budget; None where nobody keeps an account.
        card: what the data looks like; None where nobody looked.
        rows: train rows that a researcher may be shown.
        barred: whether people do not want a kind of change.
    """

    tree: Tree
    rng: Random
    index: int
    affordable_s: float | None
    nominal_s: Callable[[Recipe], float]
    remembered: Remembered = field(default_factory=Remembered)
    admit: Callable[[Recipe], Recipe | None] = itself
    nearest: Callable[[Recipe], Recipe | None] = itself
    remaining: Remaining | None = None
    card: DataCard | None = None
    rows: Sequence[Row] = ()
    barred: Callable[[str], bool] = nothing

    @property
    def priors(self) -> Mapping[str, Prior]:
        """Kind of change -> what finished runs taught about its effect."""
        return self.remembered.priors


class Researcher(Protocol):
    """Proposes one experiment at a time."""

    def propose(self, task: TaskSpec, choice: Choice, context: Context) -> Proposal:
        """Return a proposal whose recipe is valid, is not in the tree yet (replicate apart), and has one change.

        Deterministic: the same choice, tree and generator give the same proposal. Where the choice has nothing new to
        offer, the proposal answers another and says so in `carried_out`. `choice.move` is never stop.
        """
        ...


@runtime_checkable
class Guiding(Researcher, Protocol):
    """A researcher that may answer a choice in place of a policy that names the recipe itself."""

    @property
    def fallback(self) -> Researcher:
        """Who proposes where this one does not."""
        ...

    def guide(self, task: TaskSpec, choice: Choice, context: Context, otherwise: Callable[[], Proposal]) -> Proposal:
        """As `propose`, but with what would be proposed without this researcher; not called where it is not needed."""
        ...
