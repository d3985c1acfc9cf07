"""Where the search may still go: whatever people banned, pinned or rejected is kept from whoever proposes.

One place for all of them. Policies see a tree in which what is closed is not offered to be extended; recipes that they
name, and what a researcher proposes, are looked at once more. What people put in themselves does not come through here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Callable

from postgrad.admission import answered_choice, recordable
from postgrad.people.brought import brought
from postgrad.people.standing import Standing, kinds_of
from postgrad.records import Choice, Move, Order, Proposal, Recipe, TaskSpec
from postgrad.research.base import Context, Guiding, Researcher
from postgrad.research.exact import answer
from postgrad.tree import Tree

Ask = Callable[[Choice, Context], Proposal]
# Proposals that are turned away for one choice before it is given up.
TRIES = 80


@dataclass(frozen=True)
class Rule:
    """What a person decided that stands against something: in words, the order, and the order that would lift it."""

    said: str
    order: Order
    lifted_by: str


@dataclass(frozen=True)
class Gate:
    """The rules that people made, as they stand now."""

    standing: Standing

    @property
    def open(self) -> bool:
        """True where nobody made a rule."""
        standing = self.standing
        return not (standing.pins or standing.bans or standing.barred)

    def barred(self, kind: str) -> bool:
        """Whether a kind of change is not to be proposed, in whatever company."""
        return self.against(frozenset([kind])) is not None

    def against(self, kinds: frozenset[str]) -> Rule | None:
        """What stands against changes of these kinds, made together; None where nothing does."""
        standing = self.standing
        for kind in sorted(kinds):
            group = kind.partition(".")[0]
            for what in (kind, group):
                if what in standing.bans:
                    return Rule(f"{what} is banned", standing.bans[what], f"unban {what}")
            if standing.pins and group == "draft":
                return self._pinned()
        for barred, order in standing.barred.items():
            if barred <= kinds:
                names = sorted(barred)
                return Rule(f"{' with '.join(names)} was rejected", order, f"unban {names[0]}")
        return None

    def closed(self, parent: str | None, tree: Tree) -> Rule | None:
        """What stands against extending an experiment, or against a new start where there is none."""
        standing = self.standing
        path = [node.id for node in tree.path(parent)] if parent is not None else []
        for name in path:
            if name in standing.bans:
                said = f"{name} is banned" if name == parent else f"{name}, which {parent} is built on, is banned"
                return Rule(said, standing.bans[name], f"unban {name}")
        return self._pinned() if standing.pins and not set(path) & set(standing.pins) else None

    def _pinned(self) -> Rule:
        name, order = next(reversed(self.standing.pins.items()))
        names = " and ".join(self.standing.pins)
        return Rule(f"only {names} and what is below is extended", order, f"unpin {name}")

    def view(self, tree: Tree) -> Tree:
        """The tree with what may not be extended closed off."""
        if self.open:
            return tree
        return replace(tree, closed_off=self._closed(tree))

    def _closed(self, tree: Tree) -> frozenset[str]:
        banned: set[str] = set()
        pinned: set[str] = set()
        for node in tree.all():  # A parent comes before its children.
            if node.id in self.standing.bans or node.parent in banned:
                banned.add(node.id)
            if node.id in self.standing.pins or node.parent in pinned:
                pinned.add(node.id)
        outside = set(tree.experiments) - pinned if self.standing.pins else set()
        return frozenset(banned | outside)

    def proposal(self, ask: Ask, again: Ask, choice: Choice, context: Context) -> tuple[Proposal, Choice] | None:
        """What is proposed within the rules, and the choice that it answers; None where nothing new is left there.

        Args:
            ask: asks the researcher.
            again: asks whoever answers at once and without a price, once a proposal was turned away.
        """
        if self.open:
            return _answered(ask(choice, context), choice, context)
        context = _without(context, self._kept_back(context.tree))
        first = allowed = self._redirected(choice, context.tree)
        refused: set[str] = set()
        price = None
        for _ in range(TRIES if allowed is not None else 0):
            assert allowed is not None
            found = (again if refused else ask)(allowed, _without(context, refused))
            price = price or found.asked
            if not self._bars(found, allowed, context.tree):
                return _answered(found.model_copy(update={"asked": price}), allowed, context)
            if found.recipe.hash in refused:
                return None
            refused.add(found.recipe.hash)
            allowed = self._plain(first) if first else None
        return None

    def _kept_back(self, tree: Tree) -> set[str]:
        """Recipes of sketches whose changes may not be made together. A proposer that keeps one would offer it first
        each time it is asked."""
        asked = [node.proposed.proposal.asked for node in tree.all()]
        sketches = [sketch for each in asked if each is not None for sketch in each.sketches]
        return {each.recipe.hash for each in sketches if self.against(frozenset(each.kinds)) is not None}

    def _plain(self, choice: Choice) -> Choice:
        """The same without the recipe that was turned away."""
        if choice.recipe is None:
            return choice
        move = Move.DRAFT if choice.parent is None else Move.IMPROVE
        return Choice(parent=choice.parent, move=move, reason=f"{choice.reason}; people ruled that out")

    def _redirected(self, choice: Choice, tree: Tree) -> Choice | None:
        """The choice, or another where it extends what is closed; None where nothing open can be extended."""
        parents = {name for name in (choice.parent, choice.other) if name is not None}
        if not parents & tree.closed_off and (parents or not self.standing.pins):
            return choice
        best, reason = tree.best(), f"{choice.reason}; people closed that".removeprefix("; ")
        if best is not None:
            return Choice(parent=best.id, move=Move.IMPROVE, reason=reason)
        return None if self.standing.pins else Choice(parent=None, move=Move.DRAFT, reason=reason)

    def _bars(self, proposal: Proposal, choice: Choice, tree: Tree) -> bool:
        carried = proposal.carried_out or choice
        parents = {name for name in (carried.parent, carried.other) if name is not None}
        if parents & tree.closed_off or (self.standing.pins and not parents):
            return True
        node = tree.experiments.get(carried.parent or "")
        before = node.proposed.proposal.recipe if node is not None else None
        kinds = kinds_of(proposal, choice) | {proposal.kind} | brought(before, proposal.recipe)
        return self.against(kinds) is not None


def _answered(proposal: Proposal, choice: Choice, context: Context) -> tuple[Proposal, Choice]:
    return proposal, answered_choice(choice, proposal, context.tree).model_copy(update={"recipe": None})


def _without(context: Context, refused: set[str]) -> Context:
    """The context in which these recipes cannot be run."""

    def kept(admit: Callable[[Recipe], Recipe | None]) -> Callable[[Recipe], Recipe | None]:
        def look(recipe: Recipe) -> Recipe | None:
            found = admit(recipe)
            return None if found is None or found.hash in refused else found

        return look

    return replace(context, admit=kept(context.admit), nearest=kept(context.nearest)) if refused else context


def asking(researcher: Researcher, policy: str, task: TaskSpec) -> tuple[Ask, Ask]:
    """How a researcher is asked; and who stands in for it, where it has somebody who answers at once."""
    second = researcher.fallback if isinstance(researcher, Guiding) else researcher

    def ask(choice: Choice, context: Context) -> Proposal:
        return recordable(answer(researcher, policy, task, choice, context))

    def again(choice: Choice, context: Context) -> Proposal:
        return recordable(answer(second, policy, task, choice, context))

    return ask, again
