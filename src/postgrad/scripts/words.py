"""Which words a constant may be, as the code itself says: "adam" where there is `if OPTIMIZER == "adam"`."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import Iterator, Sequence

from postgrad.scripts.ranges import Literal, leaf_of
from postgrad.scripts.splice import last_name

WORD = re.compile(r"[A-Za-z][\w-]{0,19}")


@dataclass(frozen=True)
class Words:
    """Groups of words that stand side by side in code, and those that a name is compared with.

    Attributes:
        groups: keys of a dict, parts of `Literal[...]`, and tuples, lists and sets of nothing but words.
        compared: (last part of the name in lower case, word).
    """

    groups: tuple[frozenset[str], ...]
    compared: frozenset[tuple[str, str]]

    @classmethod
    def of(cls, trees: Sequence[ast.Module]) -> Words:
        """The words of some files."""
        nodes = [node for tree in trees for node in ast.walk(tree)]
        groups = tuple(dict.fromkeys(group for node in nodes if len(group := _group(node)) > 1))
        return cls(groups, frozenset(pair for node in nodes for pair in _compared(node)))

    def beside(self, name: str, value: Literal) -> tuple[str, ...]:
        """What the code takes in place of a word of this name: the groups that it is in, and what its name is compared
        with; none for what is no word."""
        if not isinstance(value, str):
            return ()
        found = {word for group in self.groups if value in group for word in group}
        found |= {word for compared, word in self.compared if compared == leaf_of(name)}
        return tuple(sorted(found))


def _word(node: ast.expr | None) -> str:
    text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
    return text if WORD.fullmatch(text) else ""


def _group(node: ast.AST) -> frozenset[str]:
    parts: Sequence[ast.expr | None] = ()
    if isinstance(node, ast.Dict):
        parts = node.keys
    elif isinstance(node, ast.Tuple | ast.List | ast.Set):
        parts = node.elts
    words = [_word(part) for part in parts]
    return frozenset(words) if all(words) else frozenset()


def _compared(node: ast.AST) -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.Compare) and last_name(node.left):
        name = leaf_of(last_name(node.left))
        for side in node.comparators:
            parts = side.elts if isinstance(side, ast.Tuple | ast.List | ast.Set) else [side]
            yield from ((name, word) for part in parts if (word := _word(part)))
    elif isinstance(node, ast.Match):
        for case in node.cases:
            word = _word(case.pattern.value) if isinstance(case.pattern, ast.MatchValue) else ""
            if word and last_name(node.subject):
                yield leaf_of(last_name(node.subject)), word
