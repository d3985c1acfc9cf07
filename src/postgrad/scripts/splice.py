"""Changes of a source text at the places of its syntax tree. Whatever no change covers stays byte for byte."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Iterable

KEPT = 8
LINE_END = re.compile(r"\r\n|\r|\n")
COMMENT_OR_NOTHING = re.compile(r"[ \t\f]*(#.*)?")


@dataclass(frozen=True)
class Change:
    """Characters start to end (exclusive) become `text`."""

    start: int
    end: int
    text: str


def spliced(source: str, changes: Iterable[Change]) -> str:
    """The source with all changes made. They must not overlap; of two insertions at one place the first comes first."""
    parts, at = [], 0
    for change in sorted(changes, key=lambda change: (change.start, change.end)):
        if change.start < at:
            raise ValueError(f"two changes overlap at character {change.start}")
        parts += [source[at : change.start], change.text]
        at = change.end
    return "".join([*parts, source[at:]])


def parsed(source: str) -> ast.Module | None:
    """The syntax tree; None where the text is no Python."""
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


@dataclass(frozen=True)
class Script:
    """A source text with its syntax tree."""

    source: str
    tree: ast.Module

    @classmethod
    def of(cls, source: str) -> Script | None:
        """The script; None where the text is no Python. Remembered: many edits look at one script."""
        return _script(source)

    @cached_property
    def _line_starts(self) -> list[int]:
        return [0, *(found.end() for found in LINE_END.finditer(self.source))]

    @cached_property
    def newline(self) -> str:
        """How the text ends its lines."""
        found = LINE_END.search(self.source)
        return found.group() if found else "\n"

    @cached_property
    def parents(self) -> dict[ast.AST, ast.AST]:
        """Node -> the node that holds it."""
        return {child: node for node in ast.walk(self.tree) for child in ast.iter_child_nodes(node)}

    def offset(self, line: int, column: int) -> int:
        """The character at a line (from 1) and a column in UTF-8 bytes, as `ast` counts."""
        start = self._line_starts[line - 1]
        after = self._line_starts[line] if line < len(self._line_starts) else len(self.source)
        return start + len(self.source[start:after].encode()[:column].decode(errors="ignore"))

    def span(self, node: ast.expr | ast.stmt | ast.keyword | ast.alias) -> tuple[int, int]:
        """The characters of a node: start, end (exclusive)."""
        if node.end_lineno is None or node.end_col_offset is None:
            raise ValueError("the node has no place")
        return self.offset(node.lineno, node.col_offset), self.offset(node.end_lineno, node.end_col_offset)

    def text(self, node: ast.expr | ast.stmt | ast.keyword | ast.alias) -> str:
        """The source of a node."""
        start, end = self.span(node)
        return self.source[start:end]

    def replaced(self, node: ast.expr | ast.stmt | ast.keyword, text: str) -> Change:
        """The change of a node to this text."""
        return Change(*self.span(node), text)

    def lines(self, node: ast.stmt) -> tuple[int, int] | None:
        """The characters of the whole lines of a statement, its decorators and the last line's comment included; None
        where it shares a line with another statement."""
        decorators = getattr(node, "decorator_list", [])
        first = min([node.lineno, *(decorator.lineno for decorator in decorators)])
        start, last = self._line_starts[first - 1], node.end_lineno or node.lineno
        begins = self.offset(node.lineno, node.col_offset)
        before = self.source[self._line_starts[node.lineno - 1] : begins]
        after_line = self._line_starts[last] if last < len(self._line_starts) else len(self.source)
        after = self.source[self.span(node)[1] : after_line].rstrip("\r\n")
        if before.strip() or not COMMENT_OR_NOTHING.fullmatch(after):
            return None
        return start, after_line

    def indent(self, node: ast.stmt) -> str:
        """The white space before a statement on its line."""
        return self.source[self._line_starts[node.lineno - 1] : self.offset(node.lineno, node.col_offset)]

    def line_before(self, node: ast.stmt, text: str) -> Change | None:
        """A new line before a statement, as far indented; None where the statement shares a line."""
        lines = self.lines(node)
        return lines and Change(lines[0], lines[0], f"{self.indent(node)}{text}{self.newline}")

    def line_after(self, node: ast.stmt, text: str) -> Change | None:
        """A new line after a statement, as far indented; None where the statement shares a line."""
        lines = self.lines(node)
        if lines is None:
            return None
        lead = "" if self.source[lines[0] : lines[1]].endswith(("\n", "\r")) else self.newline
        tail = "" if lead else self.newline
        return Change(lines[1], lines[1], f"{lead}{self.indent(node)}{text}{tail}")

    def without(self, node: ast.stmt) -> Change | None:
        """The deletion of a statement's lines; None where it shares a line or its block would be empty."""
        lines = self.lines(node)
        holder = self.parents.get(node)
        blocks = [getattr(holder, name, None) for name in ("body", "orelse", "finalbody")]
        block = next((block for block in blocks if isinstance(block, list) and node in block), [])
        if lines is None or (len(block) < 2 and not isinstance(holder, ast.Module)):
            return None
        return Change(*lines, "")


@lru_cache(maxsize=KEPT)
def _script(source: str) -> Script | None:
    tree = parsed(source)
    return None if tree is None else Script(source, tree)


def last_name(node: ast.expr) -> str:
    """The last part of a dotted name: "AdamW" of `torch.optim.AdamW`; "" where it is none."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def dotted(node: ast.expr) -> str:
    """A dotted name as it is written: "torch.optim.AdamW"; "" where it is none."""
    if isinstance(node, ast.Name):
        return node.id
    head = dotted(node.value) if isinstance(node, ast.Attribute) else ""
    return f"{head}.{node.attr}" if head and isinstance(node, ast.Attribute) else ""
