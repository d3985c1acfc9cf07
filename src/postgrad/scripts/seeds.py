"""What a script does apart from its seeds. A score that rose because another seed was taken is luck."""

from __future__ import annotations

import ast
from functools import lru_cache

from postgrad.scripts.ranges import is_seed
from postgrad.scripts.splice import KEPT, last_name, parsed

MASK = "a seed"
DRAWS = {"rand", "randn", "randint", "random", "uniform", "normal", "randperm", "shuffle", "choice", "sample"}
DRAWERS = {"torch", "random", "np", "numpy", "mx", "rng", "generator"}


@lru_cache(maxsize=KEPT)
def unseeded(source: str) -> str | None:
    """The program with every seed replaced by a mask, as text to compare; None where it is no Python.

    Statements that do nothing but set a seed or throw a random number away, docstrings, and imports of names that
    nothing else uses are left out.
    """
    tree = parsed(source)
    if tree is None:
        return None
    masked = _Masked().visit(tree)
    used = {node.id for node in ast.walk(masked) if isinstance(node, ast.Name)}
    return ast.dump(_Imports(used).visit(masked))


def only_seeds_differ(before: str, after: str) -> bool:
    """Whether two scripts differ, and in nothing that the program does but what its random generators are seeded with.

    Comments, layout, imports of unused names and draws that are thrown away do not count as differences.
    """
    one, two = parsed(before), parsed(after)
    if one is None or two is None or ast.dump(one) == ast.dump(two):
        return False
    return unseeded(before) == unseeded(after)


@lru_cache(maxsize=KEPT)
def seeds(source: str) -> tuple[str, ...]:
    """Every expression that seeds a generator, in the order of the text; an edit leaves them alone."""
    tree = parsed(source)
    if tree is None:
        return ()
    mask = _Masked()
    mask.visit(tree)
    return tuple(mask.found)


class _Masked(ast.NodeTransformer):
    def __init__(self) -> None:
        self.found: list[str] = []

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        call = node.value
        if isinstance(call, ast.Constant) and isinstance(call.value, str):
            return None
        if isinstance(call, ast.Call):
            if is_seed(last_name(call.func)):
                self.found.append(ast.dump(call))
                return None
            if _draws(call):
                return None
        return self.generic_visit(node)

    def visit_For(self, node: ast.For) -> ast.AST | None:
        """A loop that does nothing but throw numbers away goes with them."""
        self.generic_visit(node)
        return node if node.body else None

    def visit_Assign(self, node: ast.Assign) -> ast.AST | None:
        if _draws(node.value) and all(last_name(target) == "_" for target in node.targets):
            return None
        for target in node.targets:
            key = target.slice if isinstance(target, ast.Subscript) else None
            if isinstance(key, ast.Constant) and isinstance(key.value, str) and is_seed(key.value):
                self.found.append(ast.dump(node.value))
                return None
        if any(is_seed(last_name(target)) for target in node.targets):
            node.value = self._masked(node.value)
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node.value is not None and is_seed(last_name(node.target)):
            node.value = self._masked(node.value)
        return self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        if is_seed(last_name(node.target)):
            node.value = self._masked(node.value)
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        words = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        if last_name(node.func) == "add_argument" and any(is_seed(word) for word in words):
            for keyword in node.keywords:
                keyword.value = self._masked(keyword.value) if keyword.arg == "default" else keyword.value
        elif is_seed(last_name(node.func)):
            node.args = [self._masked(argument) for argument in node.args]
        for keyword in node.keywords:
            if keyword.arg and is_seed(keyword.arg):
                keyword.value = self._masked(keyword.value)
        return self.generic_visit(node)

    def visit_Dict(self, node: ast.Dict) -> ast.AST:
        for i, key in enumerate(node.keys):
            if isinstance(key, ast.Constant) and isinstance(key.value, str) and is_seed(key.value):
                node.values[i] = self._masked(node.values[i])
        return self.generic_visit(node)

    def visit_arguments(self, node: ast.arguments) -> ast.AST:
        taken = [*node.posonlyargs, *node.args][-len(node.defaults) :] if node.defaults else []
        node.defaults = [
            self._masked(value) if is_seed(arg.arg) else value for arg, value in zip(taken, node.defaults, strict=True)
        ]
        node.kw_defaults = [
            self._masked(value) if value and is_seed(arg.arg) else value
            for arg, value in zip(node.kwonlyargs, node.kw_defaults, strict=True)
        ]
        return self.generic_visit(node)

    def _masked(self, value: ast.expr) -> ast.expr:
        if not (isinstance(value, ast.Constant) and value.value == MASK):
            self.found.append(ast.dump(value))
        return ast.Constant(MASK)


class _Imports(ast.NodeTransformer):
    """Leaves out imports of names that nothing uses."""

    def __init__(self, used: set[str]) -> None:
        self.used = used

    def visit_Import(self, node: ast.Import) -> ast.AST | None:
        return self._kept(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | None:
        return self._kept(node)

    def _kept(self, node: ast.Import | ast.ImportFrom) -> ast.AST | None:
        node.names = [n for n in node.names if n.name == "*" or (n.asname or n.name).split(".")[0] in self.used]
        return node if node.names else None


def _draws(node: ast.expr) -> bool:
    """Whether a value is a draw of random numbers by a library."""
    return isinstance(node, ast.Call) and last_name(node.func) in DRAWS and _root(node.func) in DRAWERS


def _root(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""
