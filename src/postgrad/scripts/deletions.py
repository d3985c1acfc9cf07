"""What may be deleted of a script, one thing at a time: of two scripts with one score the shorter is the better."""

from __future__ import annotations

import ast
import re
import sys
from typing import Sequence

from postgrad.scripts.constants import Function
from postgrad.scripts.splice import Change, Script, last_name, spliced

#: Helpers that a script cannot do without, or whose absence nobody would see in the score.
NEEDED = re.compile(
    r"main|train|eval|test|save|writ|dump|export|load|init|seed|step|backward|setup|prepare|fit|run|report|log|optim"
)
WRITES = {"open", "save", "save_file", "dump", "dumps", "write", "write_text", "write_bytes", "savez", "seed"}
HARMLESS = sys.stdlib_module_names | {"torch", "numpy"}
ENDS = ast.Return | ast.Raise | ast.Continue | ast.Break
ROUNDS = 8


def unused(script: Script) -> list[Change]:
    """Functions, classes and imports of the module that nothing names, and what only those used.

    Imports alone are not worth an experiment.
    """
    gone: dict[int, ast.stmt] = {}
    for _ in range(ROUNDS):
        before = len(gone)
        used = _named([node for node in script.tree.body if id(node) not in gone])
        for node in script.tree.body:
            names = _defined(node)
            if names and not any(used[name] > _inside(node, name) for name in names):
                gone[id(node)] = node
        if len(gone) == before:
            break
    if all(isinstance(node, ast.Import | ast.ImportFrom) for node in gone.values()):
        return []
    changes = [script.without(node) for node in gone.values()]
    return [change for change in changes if change]


def unreachable(script: Script) -> list[Change]:
    """`if False:` without an `else`, and statements after a return, raise, continue or break."""
    dead: list[ast.stmt] = []
    for node in ast.walk(script.tree):
        for name in ("body", "orelse", "finalbody"):
            block = getattr(node, name, [])
            ended = False
            for statement in block if isinstance(block, list) else []:
                dead += [statement] if ended or _never(statement) else []
                ended = ended or isinstance(statement, ENDS)
    outer = [one for one in dead if not any(one is not two and one in ast.walk(two) for two in dead)]
    changes = [script.without(node) for node in outer]
    return [change for change in changes if change]


def helper_calls(script: Script) -> dict[str, list[Change]]:
    """Name of a helper -> the deletion of the statements that call it for nothing but what it does, and of the helper
    where nothing else names it. Helpers that write, train or evaluate are left alone."""
    functions = {node.name: node for node in script.tree.body if isinstance(node, Function)}
    found: dict[str, list[Change]] = {}
    for name, function in functions.items():
        statements = [
            node
            for node in ast.walk(script.tree)
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
            and isinstance(node.value.func, ast.Name) and node.value.func.id == name
        ]  # fmt: skip
        if not statements or NEEDED.search(name.lower()) or _writes(function):
            continue
        changes = [script.without(node) for node in statements]
        made = [change for change in changes if change]
        mentions = _named(script.tree.body)[name] - _inside(function, name)
        if len(made) == len(statements) == mentions:
            whole = script.without(function)
            made += [whole] if whole else []
        if len(made) >= len(statements):
            found[name] = made
    return found


def after(script: Script, changes: Sequence[Change]) -> str:
    """The source without what the changes delete, and without the empty lines that piled up at one of them."""
    widened = []
    for change in changes:
        end = change.end
        before = script.source[: change.start]
        if not before.strip() or re.search(r"(\r?\n)[ \t]*\r?\n[ \t]*\Z", before):
            empty = re.compile(r"([ \t]*\r?\n)*").match(script.source, end)
            end = empty.end() if empty else end
        widened.append(Change(change.start, end, change.text))
    return spliced(script.source, widened)


class _Count(dict[str, int]):
    def __missing__(self, key: str) -> int:
        return 0


def _named(nodes: Sequence[ast.AST]) -> _Count:
    """How often each name is read, or stands in a string, which may be looked up."""
    found = _Count()
    for top in nodes:
        for node in ast.walk(top):
            if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Store):
                found[node.id] += 1
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                for word in set(re.findall(r"\w+", node.value)) if len(node.value) < 200 else ():
                    found[word] += 1
    return found


def _inside(node: ast.stmt, name: str) -> int:
    """How often a definition names itself."""
    return _named([node])[name]


def _defined(node: ast.stmt) -> list[str]:
    """The names that a statement of the module defines and does nothing else; none for any other statement."""
    if isinstance(node, Function | ast.ClassDef):
        return [] if node.decorator_list and isinstance(node, Function) else [node.name]
    if isinstance(node, ast.Import):
        known = all(alias.name.split(".")[0] in HARMLESS for alias in node.names)
        return [alias.asname or alias.name.split(".")[0] for alias in node.names] if known else []
    if isinstance(node, ast.ImportFrom) and node.module and node.module != "__future__" and not node.level:
        known = node.module.split(".")[0] in HARMLESS and not any(alias.name == "*" for alias in node.names)
        return [alias.asname or alias.name for alias in node.names] if known else []
    return []


def _never(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.If)
        and isinstance(node.test, ast.Constant)
        and not node.test.value
        and not node.orelse
    )  # fmt: skip


def _writes(function: Function) -> bool:
    """Whether a helper leaves files, sets seeds, or changes what it was given."""
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and (last_name(node.func) in WRITES or "seed" in last_name(node.func)):
            return True
        if isinstance(node, ast.Global | ast.Nonlocal | ast.Yield | ast.YieldFrom | ast.Await):
            return True
    return False
