"""The calls of a script, their keywords, and what is known where they stand."""

from __future__ import annotations

import ast

from postgrad.scripts.constants import Function
from postgrad.scripts.splice import Change, Script, last_name


def calls(script: Script, *names: str) -> list[ast.Call]:
    """The calls of functions with one of these last names, in no special order."""
    return [n for n in ast.walk(script.tree) if isinstance(n, ast.Call) and last_name(n.func) in names]


def keyword(call: ast.Call, name: str) -> ast.keyword | None:
    """The keyword of a call; one without a name where the call passes `**`, which may hold it."""
    return next((found for found in call.keywords if found.arg in (name, None)), None)


def _arguments(call: ast.Call) -> list[ast.expr | ast.keyword]:
    return [*call.args, *call.keywords]


def with_keyword(script: Script, call: ast.Call, text: str) -> Change:
    """A keyword more, after the last argument."""
    ends = [script.span(argument)[1] for argument in _arguments(call)]
    at = max(ends, default=script.span(call)[1] - 1)
    return Change(at, at, f", {text}" if ends else text)


def without_keyword(script: Script, call: ast.Call, gone: ast.keyword) -> Change:
    """One keyword less, with its comma."""
    spans = sorted(script.span(argument) for argument in _arguments(call))
    at = spans.index(script.span(gone))
    if at:
        return Change(spans[at - 1][1], spans[at][1], "")
    return Change(spans[0][0], spans[1][0] if len(spans) > 1 else spans[0][1], "")


def imports(script: Script, module: str) -> bool:
    """Whether the file has `import module` under its own name."""
    imports = [node for node in script.tree.body if isinstance(node, ast.Import)]
    return any(alias.name == module and alias.asname is None for node in imports for alias in node.names)


def function_of(script: Script, node: ast.AST) -> Function | None:
    found: ast.AST | None = node
    while found is not None and not isinstance(found, Function):
        found = script.parents.get(found)
    return found if isinstance(found, Function) else None


def known_at(script: Script, name: str, node: ast.AST) -> bool:
    """Whether a name is bound in the function around a node, or in the module."""
    function = function_of(script, node)
    scopes: list[ast.AST] = [script.tree, *([function] if function else [])]
    taken = {arg.arg for arg in ast.walk(function) if isinstance(arg, ast.arg)} if function else set()
    stored = {
        inner.id
        for scope in scopes
        for inner in ast.walk(scope)
        if isinstance(inner, ast.Name)
        and isinstance(inner.ctx, ast.Store)
        and function_of(script, inner) in (None, function)
    }
    return name in taken | stored
