"""The guards of one run at work: answers in, values out. It holds the labels of the side rows; no worker does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Container, Mapping, Sequence

from postgrad.evaluate.evaluator import UnitOutputs, apply_threshold, items_of
from postgrad.evaluate.graded import Judge, UnitTexts, judge_ahead
from postgrad.evaluate.guards import AnswersKind, kind_of
from postgrad.evaluate.guards.base import Answered
from postgrad.evaluate.guards.rows import GuardPlan
from postgrad.evaluate.splits import UnitPlan
from postgrad.metrics.base import Graded
from postgrad.metrics.items import Items, join
from postgrad.records import Estimate, Guard, Row

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def only(outputs: UnitOutputs | UnitTexts, wanted: Container[str]) -> UnitOutputs | UnitTexts:
    """The answers to the wanted ids, in their order."""
    import numpy as np

    if isinstance(outputs, UnitTexts):
        return outputs.only([i for i, name in enumerate(outputs.ids) if name in wanted])
    index = np.array([i for i, name in enumerate(outputs.ids) if name in wanted], dtype=np.int64)
    return UnitOutputs(tuple(outputs.ids[i] for i in index), outputs.probs[index], outputs.score[index])


def without(outputs: UnitOutputs | UnitTexts, unwanted: Container[str]) -> UnitOutputs | UnitTexts:
    """The answers to all but the unwanted ids."""
    return only(outputs, {name for name in outputs.ids if name not in unwanted})


@dataclass(frozen=True)
class GuardReferee:
    """Measures the guards that answers decide.

    Attributes:
        guards: the task's guards, by name.
        plan: which rows they are about.
        side: id -> side row.
        labels, out_of_scope: what can be answered.
        graded: the metrics of answers in words.
        judge: that of the task, where it has one.
    """

    guards: Mapping[str, Guard]
    plan: GuardPlan
    side: Mapping[str, Row]
    labels: tuple[str, ...]
    out_of_scope: str | None
    seed: int
    graded: tuple[str, ...] = ()
    judge: Judge | None = None

    def of_items(self, items: Items, split: str) -> dict[str, Estimate]:
        """The guards without rows of their own, on the answered items of a split. A slice that the split's file does
        not show is left out."""
        found = {}
        for name, guard in self.guards.items():
            kind = kind_of(guard)
            if not isinstance(kind, AnswersKind) or guard.data is not None:
                continue
            chosen = items
            if guard.slice is not None:
                ids = self.plan.slices.get(name, {}).get(split)
                if ids is None:
                    continue
                chosen = items.take(_inside(items, frozenset(ids)))
            found[name] = kind.measured(guard, Answered(chosen, self._texts(chosen)), self.seed)
        return found

    def of_side(
        self, answered: Sequence[tuple[UnitPlan, UnitOutputs | UnitTexts]], threshold: float | None
    ) -> dict[str, Estimate]:
        """The guards on side rows, over the answers of one or more units, rejected by a threshold that other rows set.

        A labelled row counts in the units whose training saw its label: that a model does not know an intent it was
        never shown says nothing about the final one.
        """
        judge_ahead(self.judge, [(only(outputs, self.side), self.side) for _, outputs in answered])
        found = {}
        for name, ids in self.plan.asked.items():
            guard = self.guards[name]
            kind = kind_of(guard)
            if not isinstance(kind, AnswersKind):
                continue
            parts = []
            for unit, outputs in answered:
                wanted = {one for one in ids if guard.metric is None or self.side[one].label not in unit.held_out}
                parts.append(self._side_items(unit.name, only(outputs, wanted)))
            items = apply_threshold(join(parts), threshold)
            found[name] = kind.measured(guard, Answered(items, self._texts(items)), self.seed)
        return found

    def _side_items(self, unit: str, outputs: UnitOutputs | UnitTexts) -> Items:
        return items_of(unit, outputs, self.side, self, judge=self.judge)

    def _texts(self, items: Items) -> tuple[str, ...]:
        """Each answer as a reader gets it."""
        if isinstance(items.answers, Graded):
            return items.answers.texts
        rejection = self.out_of_scope or ""
        return tuple(self.labels[i] if i >= 0 else rejection for i in items.labelled.predicted.tolist())


def _inside(items: Items, ids: frozenset[str]) -> NDArray[np.int64]:
    """Positions of the items that were made from one of the rows: the row itself, or a disturbed copy."""
    import numpy as np

    rows = (str(key).partition("/")[2].split("+", 1)[0].split("~", 1)[0] for key in items.keys)
    return np.array([i for i, row in enumerate(rows) if row in ids], dtype=np.int64)
