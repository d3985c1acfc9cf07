"""The changes behind the table of `edits.py`. Each takes a script and returns its changes, none where the code that it
is for is not recognised for sure."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator

from postgrad.scripts.calls import calls, function_of, imports, keyword, known_at, with_keyword, without_keyword
from postgrad.scripts.constants import Function, constants, evaluated, written
from postgrad.scripts.ranges import Literal, leaf_of
from postgrad.scripts.splice import Change, Script, dotted, last_name

Rewrite = Callable[[Script], list[Change]]

OPTIMIZERS = {"Adam", "AdamW", "SGD", "NAdam", "RAdam", "RMSprop"}
OPTIMIZER_NAME = re.compile(r"(^|[._])opt(im|imi[sz]er)?\d*$")
FUNCTIONAL = {"F", "functional", "nn.functional", "torch.nn.functional"}
MODULES = {"nn", "torch.nn"}
ACTIVATIONS = {"relu": "ReLU", "gelu": "GELU", "silu": "SiLU"}
HEADS = {"lm_head", "head", "classifier", "fc_out", "unembed", "output"}
RESIDUALS = {"c_proj", "o_proj", "out_proj", "proj", "down_proj", "wo"}
SCHEDULE_NAME = re.compile(r"lr|(^|_)rate|sched|anneal|cosine|decay|learning_rate")
PROGRESS = re.compile(r"progress|ratio|frac|share|pct|^[tpxs]$")

# --- gradients --------------------------------------------------------------------------------------------------------

CLIPPERS = ("clip_grad_norm_", "clip_grad_value_", "clip_grad_norm", "clip_by_global_norm", "GradScaler")


def _step(script: Script) -> ast.Expr | None:
    """The one statement `optimizer.step()`."""
    found = [script.parents.get(call) for call in calls(script, "step") if OPTIMIZER_NAME.search(_owner(call))]
    return found[0] if len(found) == 1 and isinstance(found[0], ast.Expr) else None


def _owner(call: ast.Call) -> str:
    """What a method is called on: "self.opt" of `self.opt.step()`."""
    return dotted(call.func).rpartition(".")[0]


def _model(script: Script) -> str:
    """The name of the one model whose parameters the optimizers get; "" where there is not one."""
    names = set()
    for call in calls(script, *OPTIMIZERS):
        first = dotted(call.args[0].func) if call.args and isinstance(call.args[0], ast.Call) else ""
        owner, _, method = first.rpartition(".")
        names.add(owner if method == "parameters" and owner.isidentifier() else "")
    return names.pop() if len(names) == 1 else ""


def clip_added(script: Script) -> list[Change]:
    """Clip the norm of the gradients before the optimizer's step."""
    step, model = _step(script), _model(script)
    if calls(script, *CLIPPERS) or step is None or not model or not imports(script, "torch"):
        return []
    change = script.line_before(step, f"torch.nn.utils.clip_grad_norm_({model}.parameters(), 1.0)")
    return [change] if change and known_at(script, model, step) else []


def clip_removed(script: Script) -> list[Change]:
    """Drop the clipping, with an `if` that holds nothing else."""
    found = calls(script, *CLIPPERS)
    statement = script.parents.get(found[0]) if len(found) == 1 else None
    if not isinstance(statement, ast.Expr):
        return []
    holder = script.parents.get(statement)
    whole = isinstance(holder, ast.If) and holder.body == [statement] and not holder.orelse
    change = script.without(holder if whole and isinstance(holder, ast.If) else statement)
    return [change] if change else []


# --- schedules --------------------------------------------------------------------------------------------------------


def _is_one(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and not isinstance(node.value, bool) and node.value == 1


def _linear(script: Script) -> list[tuple[Function, ast.BinOp]]:
    """Every `1 - progress` that is a factor in a function that makes a learning rate."""
    found = []
    for node in ast.walk(script.tree):
        if not isinstance(node, ast.BinOp) or not isinstance(node.op, ast.Sub) or not _is_one(node.left):
            continue
        parent, function = script.parents.get(node), function_of(script, node)
        share = isinstance(node.right, ast.BinOp) and isinstance(node.right.op, ast.Div)
        named = isinstance(node.right, ast.Name) and bool(PROGRESS.search(node.right.id))
        outer = script.parents.get(parent) if parent else None
        held = isinstance(outer, ast.Call) and last_name(outer.func) == "min"
        factor = isinstance(parent, ast.BinOp) and isinstance(parent.op, ast.Mult) and not held
        if factor and (share or named) and function and SCHEDULE_NAME.search(function.name):
            found.append((function, node))
    return found


def _cosine(script: Script) -> list[tuple[Function, ast.BinOp, str]]:
    """Every `0.5 * (1 + math.cos(math.pi * progress))` in a function, with the progress."""
    found = []
    for node in ast.walk(script.tree):
        function = function_of(script, node)
        if not (function and isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult)):
            continue
        if not (isinstance(node.left, ast.Constant) and node.left.value == 0.5 and isinstance(node.right, ast.BinOp)):
            continue
        sum_ = node.right
        call = sum_.right
        if not (isinstance(sum_.op, ast.Add) and _is_one(sum_.left) and isinstance(call, ast.Call)):
            continue
        inner = call.args[0] if dotted(call.func) == "math.cos" and len(call.args) == 1 else None
        progress = _times_pi(script, inner) if inner else ""
        if progress:
            found.append((function, node, progress))
    return found


def _times_pi(script: Script, node: ast.expr) -> str:
    """E of `math.pi * E`, or `(E) / (F)` of `math.pi * E / F`; "" where it is neither."""
    if not isinstance(node, ast.BinOp):
        return ""
    if isinstance(node.op, ast.Mult) and dotted(node.left) == "math.pi":
        return script.text(node.right)
    before = _times_pi(script, node.left) if isinstance(node.op, ast.Div) else ""
    return f"({before}) / ({script.text(node.right)})" if before else ""


def held(script: Script) -> list[Change]:
    """The rate stays at its peak for the first half and falls along a line in the second."""
    linear, cosine = _linear(script), _cosine(script)
    if len(linear) + len(cosine) != 1:
        return []
    node: ast.expr = linear[0][1] if linear else cosine[0][1]
    progress = script.text(linear[0][1].right) if linear else cosine[0][2]
    return [script.replaced(node, f"min(1.0, 2.0 * (1.0 - ({progress})))")]


def to_nadam(script: Script) -> list[Change]:
    """Torch's AdamW becomes NAdam with the same weight decay."""
    found = [call for call in calls(script, "AdamW") if dotted(call.func) in ("torch.optim.AdamW", "optim.AdamW")]
    if len(found) != 1 or any(keyword(found[0], name) for name in ("fused", "amsgrad")):
        return []
    decay = [] if keyword(found[0], "weight_decay") else [with_keyword(script, found[0], "weight_decay=0.01")]
    after = [with_keyword(script, found[0], "decoupled_weight_decay=True")]
    return [script.replaced(found[0].func, _owner(found[0]) + ".NAdam"), *decay, *after]


def to_cosine(script: Script) -> list[Change]:
    """A linear decay becomes half a cosine: in torch's scheduler, or where the share is worked out by hand."""
    schedulers = calls(script, "LinearLR")
    if len(schedulers) == 1 and imports(script, "torch"):
        call = schedulers[0]
        given = {k.arg: k.value for k in call.keywords}
        ends = [evaluated(given[name]) if name in given else None for name in ("start_factor", "end_factor")]
        if ends == [1, 0] and set(given) == {"start_factor", "end_factor", "total_iters"} and len(call.args) == 1:
            one, steps = script.text(call.args[0]), script.text(given["total_iters"])
            return [script.replaced(call, f"torch.optim.lr_scheduler.CosineAnnealingLR({one}, T_max={steps})")]
    linear = _linear(script)
    if len(linear) != 1 or _cosine(script) or not imports(script, "math"):
        return []
    progress = script.text(linear[0][1].right)
    return [script.replaced(linear[0][1], f"0.5 * (1.0 + math.cos(math.pi * ({progress})))")]


def to_linear(script: Script) -> list[Change]:
    """Half a cosine becomes a linear decay."""
    schedulers = calls(script, "CosineAnnealingLR")
    if len(schedulers) == 1 and imports(script, "torch"):
        call = schedulers[0]
        given = [*call.args[1:], *(k.value for k in call.keywords if k.arg == "T_max")]
        if len(given) == 1 and len(call.args) + len(call.keywords) == 2:
            ends = f"start_factor=1.0, end_factor=0.0, total_iters={script.text(given[0])}"
            text = f"torch.optim.lr_scheduler.LinearLR({script.text(call.args[0])}, {ends})" if call.args else ""
            return [script.replaced(call, text)] if text else []
    cosine = _cosine(script)
    if len(cosine) != 1 or _linear(script):
        return []
    return [script.replaced(cosine[0][1], f"(1.0 - ({cosine[0][2]}))")]


# --- optimizers -------------------------------------------------------------------------------------------------------


def keyword_added(functions: tuple[str, ...], text: str, *, needs: str = "", bars: tuple[str, ...] = ()) -> Rewrite:
    """Add a keyword to every call of these that has the keyword `needs`, and neither the new one nor one of `bars`."""
    name = text.split("=")[0]

    def rewrite(script: Script) -> list[Change]:
        return [
            with_keyword(script, call, text)
            for call in calls(script, *functions)
            if call.args
            and not any(keyword(call, bar) for bar in (name, *bars))
            and (not needs or keyword(call, needs))
        ]

    return rewrite


def to_adamw(script: Script) -> list[Change]:
    """Torch's Adam becomes AdamW."""
    found = [call for call in calls(script, "Adam") if dotted(call.func) in ("torch.optim.Adam", "optim.Adam")]
    return [script.replaced(c.func, dotted(c.func) + "W") for c in found if not keyword(c, "decoupled_weight_decay")]


def decay_of_matrices(script: Script) -> list[Change]:
    """Parameters of one dimension get a group without weight decay."""
    found = [
        call
        for call in calls(script, "AdamW", "Adam", "SGD")
        if last_name(call.func) == "AdamW" or any(k.arg == "weight_decay" for k in call.keywords)
    ]
    first = found[0].args[0] if len(found) == 1 and found[0].args else None
    if not isinstance(first, ast.Call) or last_name(first.func) != "parameters" or first.args or first.keywords:
        return []
    all_of = script.text(first)
    matrices = f'{{"params": [p for p in {all_of} if p.ndim >= 2]}}'
    others = f'{{"params": [p for p in {all_of} if p.ndim < 2], "weight_decay": 0.0}}'
    return [script.replaced(first, f"[{matrices}, {others}]")]


# --- layers -----------------------------------------------------------------------------------------------------------


def _layers(script: Script, *kinds: str) -> list[ast.Call]:
    """Calls of `nn.Kind(...)`."""
    return [call for call in calls(script, *kinds) if _owner(call) in MODULES]


def zeroed(names: set[str]) -> Rewrite:
    """Weights of the linear layers of these names start at zero."""

    def rewrite(script: Script) -> list[Change]:
        text = script.source
        if ".apply(" in text or "init_weights" in text:
            return []
        changes = []
        for call in _layers(script, "Linear"):
            statement = script.parents.get(call)
            if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
                continue
            target = statement.targets[0]
            if not isinstance(target, ast.Attribute) or target.attr not in names:
                continue
            weight = f"{dotted(target)}.weight"
            tied = [n for n in ast.walk(script.tree) if isinstance(n, ast.Assign) and dotted(n.value) == weight]
            line = f"{_owner(call)}.init.zeros_({weight})"
            change = None if tied or f"zeros_({weight})" in text else script.line_after(statement, line)
            changes += [change] if change else []
        return changes

    return rewrite


def to_activation(wanted: str) -> Rewrite:
    """Every activation of the script, which has one kind, becomes another."""

    def rewrite(script: Script) -> list[Change]:
        found = list(_activations(script))
        kinds = {kind for kind, _, _ in found}
        if len(kinds) != 1 or wanted in kinds:
            return []
        changes = []
        for _, node, call in found:
            base = _owner(call)
            if base in MODULES:
                if wanted not in ACTIVATIONS:
                    return []
                changes.append(script.replaced(node, f"{base}.{ACTIVATIONS[wanted]}()"))
            else:
                name, tail = ("relu", ".square()") if wanted == "relu2" else (wanted, "")
                changes.append(script.replaced(node, f"{base}.{name}({script.text(call.args[0])}){tail}"))
        return changes

    return rewrite


def _activations(script: Script) -> Iterator[tuple[str, ast.expr, ast.Call]]:
    """Kind, the node that is replaced, and the call in it."""
    for call in calls(script, *ACTIVATIONS):
        if _owner(call) in FUNCTIONAL and len(call.args) == 1:
            outer = script.parents.get(call)
            after = script.parents.get(outer) if isinstance(outer, ast.Attribute) else None
            if isinstance(outer, ast.BinOp) and isinstance(outer.op, ast.Pow) and outer.left is call:
                yield ("relu2" if evaluated(outer.right) == 2 else "power"), outer, call
            elif isinstance(outer, ast.Attribute) and isinstance(after, ast.Call) and outer.attr in ("square", "pow"):
                squared = outer.attr == "square" or (len(after.args) == 1 and evaluated(after.args[0]) == 2)
                yield ("relu2" if squared and last_name(call.func) == "relu" else "power"), after, call
            else:
                yield last_name(call.func), call, call
    for call in _layers(script, *ACTIVATIONS.values()):
        yield next(name for name, layer in ACTIVATIONS.items() if layer == last_name(call.func)), call, call


def without_dropout(script: Script) -> list[Change]:
    """Every layer of dropout becomes the identity."""
    found = _layers(script, "Dropout")
    return [script.replaced(call, f"{_owner(call)}.Identity()") for call in found]


def without_bias(script: Script) -> list[Change]:
    """Linear layers have no bias, where nothing speaks of one."""
    if any(isinstance(node, ast.Attribute) and node.attr == "bias" for node in ast.walk(script.tree)):
        return []
    plain = [call for call in _layers(script, "Linear") if not keyword(call, "bias") and len(call.args) == 2]
    return [with_keyword(script, call, "bias=False") for call in plain]


def to_rms_norm(script: Script) -> list[Change]:
    """Layer norms of one argument become RMS norms."""
    found = [call for call in _layers(script, "LayerNorm") if len(call.args) == 1 and not call.keywords]
    return [script.replaced(call.func, dotted(call.func).replace("LayerNorm", "RMSNorm")) for call in found]


# --- losses, data, numbers --------------------------------------------------------------------------------------------


def smoothing_added(script: Script) -> list[Change]:
    """Smooth the labels of the one cross-entropy, where its reduction is the mean."""
    found = calls(script, "cross_entropy", "CrossEntropyLoss")
    if len(found) != 1 or any(keyword(found[0], name) for name in ("label_smoothing", "reduction")):
        return []
    return [with_keyword(script, found[0], "label_smoothing=0.05")]


def smoothing_removed(script: Script) -> list[Change]:
    """No label smoothing, where it is a number above 0."""
    changes = []
    for call in calls(script, "cross_entropy", "CrossEntropyLoss"):
        named = next((k for k in call.keywords if k.arg == "label_smoothing"), None)
        value = evaluated(named.value) if named else None
        if named and isinstance(value, float | int) and value > 0:
            changes.append(without_keyword(script, call, named))
    return changes


def shuffled(script: Script) -> list[Change]:
    """The loader of training data shuffles."""
    changes = []
    for call in calls(script, "DataLoader"):
        statement, named = script.parents.get(call), keyword(call, "shuffle")
        target = dotted(statement.targets[0]) if isinstance(statement, ast.Assign) else ""
        if "train" not in target.lower() or keyword(call, "sampler") or keyword(call, "batch_sampler"):
            continue
        if named is None and call.args:
            changes.append(with_keyword(script, call, "shuffle=True"))
        elif named and named.arg and evaluated(named.value) is False:
            changes.append(script.replaced(named.value, "True"))
    return changes


def number_set(name: str, change: Callable[[Literal], Literal]) -> Rewrite:
    """Set every constant whose name has this word to what `change` makes of it; its own value leaves it alone."""
    pattern = re.compile(rf"(^|_){name}")

    def rewrite(script: Script) -> list[Change]:
        found = [c for c in constants("", script.source) if c.dimension is not None and pattern.search(leaf_of(c.name))]
        wanted = [(one, change(one.value)) for one in found]
        return [Change(one.start, one.end, written(one, value)) for one, value in wanted if value != one.value]

    return rewrite


def flag_set(name: str, value: bool) -> Rewrite:
    """Set every flag whose name has this word."""
    return number_set(name, lambda now: value if isinstance(now, bool) else now)


def at_least(share: float, steps: int) -> Callable[[Literal], Literal]:
    """Numbers above 0: shares rise to `share`, whole numbers to `steps`."""
    return lambda now: _moved(now, max, share, steps)


def at_most(share: float, steps: int) -> Callable[[Literal], Literal]:
    """Numbers above 0: shares fall to `share`, whole numbers to `steps`."""
    return lambda now: _moved(now, min, share, steps)


def _moved(now: Literal, pick: Callable[[float, float], float], share: float, steps: int) -> Literal:
    if isinstance(now, str | bool) or now <= 0:
        return now
    return int(pick(now, steps)) if isinstance(now, int) else float(pick(now, share))


def not_compiled(script: Script) -> list[Change]:
    """The model is not compiled: the flag is off, or the statement `model = torch.compile(model)` is gone."""
    changes = flag_set("compile", False)(script)
    if changes or any("compile" in leaf_of(one.name) for one in constants("", script.source)):
        return changes
    for call in calls(script, "compile"):
        statement = script.parents.get(call)
        if dotted(call.func) == "torch.compile" and isinstance(statement, ast.Assign) and call.args:
            same = script.text(call.args[0]) == script.text(statement.targets[0])
            change = script.without(statement) if same and len(statement.targets) == 1 else None
            changes += [change] if change else []
    return changes
