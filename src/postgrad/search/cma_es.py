"""CMA-ES over the whole recipe space (Hansen and Ostermeier 2001; the package `cmaes`, Nomura and Shibata 2024).

The space is relaxed to [0, 1]^d: a number is one dimension, a play is on above one half, and of a block of options the
largest is taken. The strategy is built from the tree at every call: experiments in index order, in generations of
`population`, each as the vector of its recipe. So whatever was tried counts, drafts of the researcher too, as solutions
from outside do in Hansen (2011, "Injecting external solutions into CMA-ES"); as there, their steps are cut to a few
standard deviations. A dimension that does not matter for a recipe is at the mean, which moves nothing. Pending
experiments count as the worst score so far (constant liar, Ginsbourger et al. 2010), and so do raced, failed and
unscored ones. It has no notion of a parent, of cost, or of an interval.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from random import Random
from typing import TYPE_CHECKING, Iterator

from pydantic import Field

from postgrad.records import Recipe, Record
from postgrad.search.base import Coordinate, Point, Space
from postgrad.search.whole import Seen, WholeParams, WholePolicy

if TYPE_CHECKING:
    import numpy as np
    from cmaes import CMA
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]

ASKS = 10
OFF, ON, MIDDLE = 0.25, 0.75, 0.5
STEPS = 3.0


class CMAESParams(WholeParams):
    """Settings of CMA-ES. It starts at the middle of the drafts.

    Attributes:
        population: experiments of a generation. The usual 4 + 3 ln d would be 17, and a run of 50 experiments would see
            three generations.
        sigma: first standard deviation in every dimension, as a share of the range.
    """

    population: int = Field(default=8, ge=4)
    sigma: float = Field(default=0.25, gt=0, le=1)


class CMAES(WholePolicy[CMAESParams]):
    """Draws the next recipe from the distribution that the generations so far have made."""

    name = "cma_es"
    libraries = ("numpy", "cmaes")
    Params: type[Record] = CMAESParams

    def __init__(self, space: Space | None = None) -> None:
        super().__init__(space)
        self._last: tuple[object, CMA, Axes] | None = None

    def suggested(
        self, known: list[Seen], space: Space, rng: Random, params: CMAESParams
    ) -> tuple[str, Iterator[Recipe]]:
        """Draws."""
        generation = len(known) // params.population + 1
        reason = f"drawn by CMA-ES in generation {generation}, after {len(known)} recipes"
        return reason, self._drawn(known, space, rng, params)

    def _drawn(self, known: list[Seen], space: Space, rng: Random, params: CMAESParams) -> Iterator[Recipe]:
        strategy, axes = self._told(known, space, params)
        strategy.reseed_rng(rng.getrandbits(31))
        for _ in range(ASKS):
            yield space.walk(partial(axes.value, vector=strategy.ask()))[1]

    def _told(self, known: list[Seen], space: Space, params: CMAESParams) -> tuple[CMA, Axes]:
        """`told`, kept while no generation becomes whole: asking changes a strategy in nothing but its generator."""
        whole = max(params.n_drafts, len(known) // params.population * params.population)
        told_of = tuple((one.node.proposed.proposal.recipe.hash, one.score) for one in known[:whole])
        key = (params, told_of, _worst(known))
        if self._last is None or self._last[0] != key:
            self._last = (key, *told(known, tuple(space.coordinates), params))
        return self._last[1:]


@dataclass(frozen=True)
class Axes:
    """Which dimensions belong to which coordinate: a block of one for each option where there are more than two, else
    one."""

    coordinates: tuple[Coordinate, ...]

    @cached_property
    def blocks(self) -> dict[str, slice]:
        """Coordinate name -> its dimensions."""
        found: dict[str, slice] = {}
        end = 0
        for coordinate in self.coordinates:
            size = coordinate.options if coordinate.options > 2 else 1
            found[coordinate.name] = slice(end, end + size)
            end += size
        return found

    def neutral(self) -> Vector:
        """The first option of each coordinate somewhat likelier than the others, every number in the middle."""
        import numpy as np

        parts = []
        for coordinate in self.coordinates:
            block = self.blocks[coordinate.name]
            part = np.full(block.stop - block.start, OFF if coordinate.options else MIDDLE)
            if coordinate.options > 2:
                part[0] = MIDDLE
            parts.append(part)
        return np.concatenate(parts)

    def vector(self, point: Point, elsewhere: Vector) -> Vector:
        """A point as a vector; `elsewhere` is what it is in the dimensions that do not matter for the point."""
        vector = elsewhere.copy()
        for coordinate in self.coordinates:
            if coordinate.name in point:
                value, block = point[coordinate.name], self.blocks[coordinate.name]
                if coordinate.options > 2:
                    vector[block] = OFF
                    vector[block.start + int(value)] = ON
                else:
                    vector[block] = (ON if value >= 1 else OFF) if coordinate.options else value
        return vector

    def value(self, coordinate: Coordinate, vector: Vector) -> float:
        """What a vector says about a coordinate."""
        part = vector[self.blocks[coordinate.name]]
        if coordinate.options > 2:
            return float(part.argmax())
        return float(part[0] > MIDDLE) if coordinate.options else min(1.0, max(0.0, float(part[0])))


def told(known: list[Seen], coordinates: tuple[Coordinate, ...], params: CMAESParams) -> tuple[CMA, Axes]:
    """The strategy after every whole generation of what is known."""
    import numpy as np
    from cmaes import CMA

    axes = Axes(coordinates)
    mean = axes.neutral()
    if first := known[: params.n_drafts]:
        mean = np.mean([axes.vector(one.point, mean) for one in first], axis=0)
    strategy = CMA(mean=mean, sigma=params.sigma, population_size=params.population, seed=0)
    worst = _worst(known)
    size = params.population
    for start in range(0, len(known) - size + 1, size):
        reach = STEPS * strategy._sigma  # It has no public name.
        solutions = []
        for one in known[start : start + size]:
            vector = axes.vector(one.point, strategy.mean)
            near = np.clip(vector, strategy.mean - reach, strategy.mean + reach)
            solutions.append((near, -(worst if one.score is None else one.score)))
        strategy.tell(solutions)
    return strategy, axes


def _worst(known: list[Seen]) -> float:
    return min((one.score for one in known if one.score is not None), default=0.0)
