"""The constants of a training script, found in its syntax tree, as typed numbers with ranges.

Found are: assignments of a module and of its functions and classes, defaults of `argparse` options, of dataclass fields
and of functions, keywords of calls, and entries of dicts; values are literals, tuples of them, or arithmetic on them.
A constant that is set twice, is never read, or is always overridden is left out, and so is whatever no rule of
`ranges.py` knows: an experiment must not be spent on a number that does nothing.
"""

from __future__ import annotations

import ast
import operator
import re
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from math import isfinite, log2
from typing import Callable, Iterator, Mapping, Sequence

from postgrad.records import Dimension
from postgrad.scripts.ranges import Literal, is_seed, known
from postgrad.scripts.splice import KEPT, Change, Script, last_name, parsed, spliced
from postgrad.scripts.words import Words

MOST_POWER = 64
Function = ast.FunctionDef | ast.AsyncFunctionDef

OPERATORS: dict[type[ast.operator], Callable[[int | float, int | float], int | float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
#: Calls whose positional argument of this number is a constant of this name.
POSITIONAL = {
    "Dropout": (0, "dropout"),
    "clip_grad_norm_": (1, "max_norm"),
    "clip_grad_value_": (1, "clip_value"),
}
#: What reads all fields of an object at once.
READ_WHOLE = frozenset({"asdict", "vars", "__dict__", "astuple", "getattr", "fields"})
#: Calls of libraries whose keywords are constants, beside those of classes and functions of the script itself.
LIBRARY_CALLS = re.compile(
    r"(Adam\w*|SGD|Muon|Lion|RMSprop|Adafactor|\w*LR|OneCycle\w*|\w*Dropout|cross_entropy|CrossEntropyLoss|DataLoader|dict"
    r"|\w*Config|\w*Arguments|\w*Args|clip_grad_\w+|get_\w+_schedule_with_warmup|\w*Classifier|\w*Regressor|\w*train\w*)"
)


@dataclass(frozen=True)
class Constant:
    """One literal of a script.

    Attributes:
        name: "LEARNING_RATE", "GPTConfig.n_layer", "ADAM_BETAS[1]", "args.lr", "AdamW.weight_decay"; unique in its
            file: the second of a name ends in "#2".
        line: from 1.
        dimension: what it may be; None where it is not tuned.
        fixed: why it is not tuned, such as "a seed"; "" where it is.
        rank: what usually matters has a low one.
        start, end: its characters in the source, the end exclusive.
        text: these characters.
    """

    name: str
    path: str
    line: int
    value: Literal
    dimension: Dimension | None
    fixed: str
    rank: int
    start: int
    end: int
    text: str

    @property
    def is_seed(self) -> bool:
        """Whether it seeds a random generator."""
        return is_seed(self.name)


@dataclass(frozen=True)
class Place:
    """Where a constant may be: its name, its expression, and strings that are known to be taken there."""

    name: str
    value: ast.expr
    offered: tuple[str, ...] = ()


@lru_cache(maxsize=KEPT)
def constants(path: str, source: str, beside: tuple[str, ...] = ()) -> tuple[Constant, ...]:
    """All constants of a script whose meaning is known, in the order of the text; none of a text that is no Python.

    Those that are not tuned (seeds, budgets, places, what the evaluation fixes) have a reason in `fixed`.

    Args:
        beside: the other Python texts of the repository, which say what words a constant may be.
    """
    script = Script.of(source)
    if script is None:
        return ()
    places = [inner for place in _places(script.tree) for inner in _elements(place)]
    found: list[Constant] = []
    names: Counter[str] = Counter()
    words = Words.of([script.tree, *(tree for text in beside if (tree := parsed(text)))])
    for place in sorted(places, key=lambda place: (place.value.lineno, place.value.col_offset)):
        made = _constant(script, place)
        if made is not None and not any(one.start == made[0] for one in found):
            start, end, value = made
            what = known(place.name, value, place.offered or words.beside(place.name, value))
            if what is None:
                continue
            names[place.name] += 1
            name = place.name if names[place.name] == 1 else f"{place.name}#{names[place.name]}"
            line, text = place.value.lineno, source[start:end]
            one = Constant(name, path, line, value, what.dimension, what.fixed, what.rank, start, end, text)
            found.append(one)
    return tuple(found)


def tunable(found: Sequence[Constant]) -> tuple[Constant, ...]:
    """Those that may be tuned, in the order of what usually matters."""
    return tuple(sorted((one for one in found if one.dimension is not None), key=lambda one: (one.rank, one.start)))


def values_of(found: Sequence[Constant]) -> dict[str, Literal]:
    """Name -> value of those that may be tuned."""
    return {one.name: one.value for one in found if one.dimension is not None}


def with_values(source: str, found: Sequence[Constant], values: Mapping[str, Literal]) -> str:
    """The source with other values of some constants; everything else stays byte for byte.

    Raises:
        ValueError: a name is not among `found`, or not tuned, or its value has another type; `found` is not of this
            source.
    """
    by_name = {one.name: one for one in found}
    changes = []
    for name, value in values.items():
        if name not in by_name:
            raise ValueError(f"the script has no constant {name!r}")
        one = by_name[name]
        if source[one.start : one.end] != one.text:
            raise ValueError(f"{name!r} was found in another text")
        text = written(one, value)
        if text != one.text:
            changes.append(Change(one.start, one.end, text))
    after = spliced(source, changes)
    if changes and parsed(after) is None:
        raise ValueError("the text with these values is no Python")
    return after


def written(one: Constant, value: Literal) -> str:
    """A value as the script would write it: its own text for its own value, a power of two where it has one.

    Raises:
        ValueError: the constant is not tuned, or the value has another type.
    """
    if _same(one.value, value):
        return one.text
    if one.dimension is None:
        raise ValueError(f"{one.name!r} is not changed: it is {one.fixed}")
    wrong = ValueError(f"{one.name!r} is {one.value!r} and cannot become {value!r}")
    if isinstance(one.value, bool) or isinstance(value, bool):
        if not (isinstance(one.value, bool) and isinstance(value, bool)):
            raise wrong
        return repr(value)
    if isinstance(one.value, str) or isinstance(value, str):
        if not (isinstance(one.value, str) and isinstance(value, str)):
            raise wrong
        return f'"{value}"' if one.text.startswith('"') and value.isidentifier() else repr(value)
    if not isfinite(value):
        raise wrong
    if isinstance(one.value, int) and (one.dimension.integer or one.dimension.choices):
        if value != int(value):
            raise wrong
        return _whole(one.text, int(value))
    return _short(float(value))


# --- values -----------------------------------------------------------------------------------------------------------


def evaluated(node: ast.expr) -> Literal | None:
    """The value of a literal, or of arithmetic on literal numbers; None for anything else."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, bool | int | float | str) else None
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        inner = _numeric(node.operand)
        return None if inner is None else (-inner if isinstance(node.op, ast.USub) else inner)
    if not isinstance(node, ast.BinOp) or type(node.op) not in OPERATORS:
        return None
    left, right = _numeric(node.left), _numeric(node.right)
    if left is None or right is None or (isinstance(node.op, ast.Pow) and abs(right) > MOST_POWER):
        return None
    try:
        value = OPERATORS[type(node.op)](left, right)
        return value if isinstance(value, int | float) and isfinite(value) else None
    except (ArithmeticError, ValueError):
        return None


def _numeric(node: ast.expr) -> int | float | None:
    value = evaluated(node)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _same(one: Literal, two: Literal) -> bool:
    return one == two and isinstance(one, bool) == isinstance(two, bool)


def _whole(text: str, value: int) -> str:
    base = text.replace(" ", "")
    power = log2(value) if value > 0 else 0.5
    return f"2**{int(power)}" if base.startswith("2**") and 2 ** int(power) == value else str(value)


def _short(value: float) -> str:
    """The shortest text of a number: 6e-4, not 0.0006, below a hundredth."""
    exact = Decimal(repr(value))
    if not 0 < abs(value) < 0.01:
        return repr(value)
    digits, power = f"{exact:.{len(exact.as_tuple().digits) - 1}e}".split("e")
    return f"{digits}e{int(power)}"


def _constant(script: Script, place: Place) -> tuple[int, int, Literal] | None:
    """Start, end and value; None where it is no literal, or its characters are not what the tree says."""
    value = evaluated(place.value)
    if value is None:
        return None
    start, end = script.span(place.value)
    try:
        again = ast.parse(f"({script.source[start:end]}\n)", mode="eval").body
    except (SyntaxError, ValueError):
        return None
    return (start, end, value) if evaluated(again) == value else None


# --- places -----------------------------------------------------------------------------------------------------------


def _elements(place: Place) -> Iterator[Place]:
    if isinstance(place.value, ast.Tuple | ast.List):
        for i, inner in enumerate(place.value.elts):
            yield Place(f"{place.name}[{i}]", inner)
    else:
        yield place


def _places(tree: ast.Module) -> Iterator[Place]:
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    own = frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef | Function))
    read = frozenset(node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    yield from _assigned(tree, "", _Names.of(tree))
    for node in ast.walk(tree):
        if isinstance(node, Function):
            yield from _assigned(node, f"{node.name}.", _Names.of(node))
            yield from _defaults(node, calls)
        elif isinstance(node, ast.ClassDef):
            yield from _fields(node, calls, read)
        elif isinstance(node, ast.Call):
            yield from _keywords(node, own)
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                # What is zero in a group of parameters is so on purpose.
                if isinstance(key, ast.Constant) and isinstance(key.value, str) and evaluated(value) != 0:
                    yield Place(f"dict.{key.value}", value)


@dataclass(frozen=True)
class _Names:
    """How often each name of a scope is set, and which are read in it or below."""

    set: Counter[str]
    read: frozenset[str]

    @classmethod
    def of(cls, scope: ast.Module | Function) -> _Names:
        names = [node for node in ast.walk(scope) if isinstance(node, ast.Name)]
        shared = [name for node in ast.walk(scope) if isinstance(node, ast.Global) for name in node.names]
        inner = {id(name) for node in ast.walk(scope) if isinstance(node, Function | ast.ClassDef) and node is not scope
                 for name in ast.walk(node)}  # fmt: skip
        added = {id(node.target) for node in ast.walk(scope) if isinstance(node, ast.AugAssign)}
        stores = [n.id for n in names if isinstance(n.ctx, ast.Store) and id(n) not in inner and id(n) not in added]
        return cls(Counter([*stores, *shared]), frozenset(n.id for n in names if isinstance(n.ctx, ast.Load)))


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a block that run at most once."""
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.With | ast.Try):
            yield from _statements(node.body)
            yield from _statements(getattr(node, "orelse", []))


def _pairs(body: Sequence[ast.stmt]) -> Iterator[tuple[str, ast.expr]]:
    for node in _statements(body):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            yield node.target.id, node.value
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    yield target.id, node.value
                elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                    both = zip(target.elts, node.value.elts, strict=False)
                    yield from ((one.id, value) for one, value in both if isinstance(one, ast.Name))


def _assigned(scope: ast.Module | Function, owner: str, names: _Names) -> Iterator[Place]:
    for name, value in _pairs(scope.body):
        if names.set[name] == 1 and (name in names.read or is_seed(name)):
            yield Place(f"{owner}{name}", value)


def _defaults(node: Function, calls: list[ast.Call]) -> Iterator[Place]:
    taken = [*node.args.posonlyargs, *node.args.args]
    pairs = [*zip(taken[len(taken) - len(node.args.defaults) :], node.args.defaults, strict=True)]
    pairs += [(arg, value) for arg, value in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True) if value]
    for arg, value in pairs:
        at = taken.index(arg) if arg in taken else None
        if not _overridden(node.name, arg.arg, at, calls):
            yield Place(f"{node.name}.{arg.arg}", value)


def _fields(node: ast.ClassDef, calls: list[ast.Call], read: frozenset[str]) -> Iterator[Place]:
    """Fields of a class that something reads; of a dataclass's `field(default=...)` the default."""
    pairs = list(_pairs(node.body))
    for i, (name, value) in enumerate(pairs):
        if isinstance(value, ast.Call) and last_name(value.func) == "field":
            value = next((k.value for k in value.keywords if k.arg == "default"), value)
        used = name in read or is_seed(name) or read & READ_WHOLE or any(last_name(c.func) in READ_WHOLE for c in calls)
        if used and not _overridden(node.name, name, i, calls):
            yield Place(f"{node.name}.{name}", value)


def _overridden(function: str, name: str, at: int | None, calls: list[ast.Call]) -> bool:
    """Whether every call passes this parameter. One that passes `**` may."""
    own = [call for call in calls if last_name(call.func) == function]
    given = [
        any(keyword.arg in (name, None) for keyword in call.keywords) or (at is not None and len(call.args) > at)
        for call in own
    ]
    return bool(own) and all(given)


def _keywords(node: ast.Call, own: frozenset[str]) -> Iterator[Place]:
    function = last_name(node.func)
    named = {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
    if function == "add_argument":
        options = [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
        if options and "default" in named:
            choices = named.get("choices")
            offered = choices.elts if isinstance(choices, ast.List | ast.Tuple) else []
            words = tuple(str(word.value) for word in offered if isinstance(word, ast.Constant))
            name = max(options, key=len).lstrip("-").replace("-", "_")
            yield Place(f"args.{name}", named["default"], words)
        return
    if function in own or LIBRARY_CALLS.fullmatch(function) or is_seed(function):
        yield from (Place(f"{function}.{name}", value) for name, value in named.items())
    if function:
        at, name = POSITIONAL.get(function, (0, "seed") if is_seed(function) else (None, ""))
        if at is not None and len(node.args) > at:
            yield Place(f"{function}.{name}", node.args[at])
