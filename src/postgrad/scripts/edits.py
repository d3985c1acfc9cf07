"""Small safe edits of a training script, for a researcher without a language model: a table, one line each.

An edit applies only where the code that it is for is recognised for sure, and not again to what it made. What comes out
is Python; nothing but the script is touched, and its seeds are left as they are. Numbers are moved in `tuning.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from postgrad.scripts import rewrites as r
from postgrad.scripts.deletions import after, helper_calls, unreachable, unused
from postgrad.scripts.rewrites import Rewrite
from postgrad.scripts.seeds import seeds
from postgrad.scripts.splice import Script, parsed


@dataclass(frozen=True)
class Edit:
    """One edit.

    Attributes:
        kind: "<group>.<name>"; what is learnt about the edit is learnt under this name.
        words: the change, in words that follow "with this change: ".
        why: why it should help.
        refuted_by: what would show that the reason is wrong.
        make: the changes of a script; none where it is not recognised.
    """

    kind: str
    words: str
    why: str
    refuted_by: str
    make: Rewrite = field(repr=False)

    def applies(self, source: str) -> bool:
        """Whether the script has what the edit is for."""
        return self._made(source) is not None

    def apply(self, source: str) -> str:
        """The script with the edit.

        Raises:
            ValueError: it does not apply.
        """
        made = self._made(source)
        if made is None:
            raise ValueError(f"{self.kind} does not apply to this script")
        return made

    def _made(self, source: str) -> str | None:
        script = Script.of(source)
        changes = self.make(script) if script else []
        if script is None or not changes:
            return None
        made = after(script, changes)
        return made if made != source and parsed(made) is not None and seeds(made) == seeds(source) else None


STEADY = "the score is no better, and the loss has as many spikes as before"
FASTER = "as many steps fit into the time as before"
NO_GAIN = "the score is no better after as long a training"

# In the order of what is usually worth a try.
EDITS: tuple[Edit, ...] = (
    Edit(
        "schedule.cosine",
        "decay the learning rate along half a cosine, not a line",
        "the rate stays high for longer and ends gently (Loshchilov and Hutter 2017)",
        NO_GAIN,
        r.to_cosine,
    ),
    Edit(
        "schedule.linear",
        "decay the learning rate along a line, not half a cosine",
        "a line to zero often beats the cosine in short runs (Bergsma et al. 2025)",
        NO_GAIN,
        r.to_linear,
    ),
    Edit(
        "schedule.held",
        "hold the learning rate for the first half and let it fall along a line in the second",
        "more of the training has the best rate (Haegele et al. 2024)",
        NO_GAIN,
        r.held,
    ),
    Edit(
        "optimizer.adamw",
        "AdamW, not Adam",
        "weight decay apart from the gradient regularises better (Loshchilov and Hutter 2019)",
        NO_GAIN,
        r.to_adamw,
    ),
    Edit(
        "optimizer.betas",
        "betas of 0.9 and 0.95 for Adam",
        "the second moment of a short run should forget sooner than a thousand steps",
        STEADY,
        r.keyword_added(("Adam", "AdamW"), "betas=(0.9, 0.95)"),
    ),
    Edit(
        "optimizer.matrices",
        "no weight decay on parameters of one dimension",
        "gains and biases are few, and pulling them to zero only hinders",
        NO_GAIN,
        r.decay_of_matrices,
    ),
    Edit(
        "optimizer.fused",
        "the fused kernel of AdamW",
        "one kernel for all parameters takes less time a step",
        FASTER,
        r.keyword_added(("AdamW",), "fused=True", bars=("foreach",)),
    ),
    Edit(
        "optimizer.nadam",
        "NAdam, not AdamW",
        "Nesterov's momentum looks a step ahead (Dozat 2016)",
        NO_GAIN,
        r.to_nadam,
    ),
    Edit(
        "optimizer.nesterov",
        "Nesterov's momentum",
        "looking ahead corrects the step sooner (Sutskever et al. 2013)",
        NO_GAIN,
        r.keyword_added(("SGD",), "nesterov=True", needs="momentum", bars=("dampening",)),
    ),
    Edit(
        "clip.add",
        "clip the gradients at norm 1",
        "a rare large gradient does not undo the steps before it (Pascanu et al. 2013)",
        STEADY,
        r.clip_added,
    ),
    Edit(
        "clip.remove",
        "no gradient clipping",
        "where gradients are small, clipping only costs time and shortens early steps",
        STEADY,
        r.clip_removed,
    ),
    Edit(
        "warmup.longer",
        "warm up for at least a tenth, or a hundred steps",
        "early steps of Adam have poor second moments and can be too large",
        STEADY,
        r.number_set("warm_?up", r.at_least(0.1, 100)),
    ),
    Edit(
        "warmup.shorter",
        "warm up for at most a fiftieth, or twenty steps",
        "a short training cannot spare the steps at a low rate",
        NO_GAIN,
        r.number_set("warm_?up", r.at_most(0.02, 20)),
    ),
    Edit(
        "activation.relu2",
        "ReLU squared",
        "it beat GELU in small transformers at no cost (So et al. 2021)",
        NO_GAIN,
        r.to_activation("relu2"),
    ),
    Edit(
        "activation.gelu",
        "GELU",
        "a smooth activation passes gradients below zero (Hendrycks and Gimpel 2016)",
        NO_GAIN,
        r.to_activation("gelu"),
    ),
    Edit(
        "activation.silu",
        "SiLU",
        "smooth as GELU and cheaper to work out (Elfwing et al. 2018)",
        NO_GAIN,
        r.to_activation("silu"),
    ),
    Edit(
        "activation.relu",
        "ReLU",
        "the cheapest activation: more steps fit into the time",
        FASTER,
        r.to_activation("relu"),
    ),
    Edit(
        "init.zero_head",
        "the last layer starts at zero",
        "the first loss is that of a uniform guess, and no step is spent on getting there",
        "the loss of the first steps is as high as before",
        r.zeroed(r.HEADS),
    ),
    Edit(
        "init.zero_residual",
        "projections into the residual stream start at zero",
        "every block starts as the identity (Zhang et al. 2019, section 3)",
        NO_GAIN,
        r.zeroed(r.RESIDUALS),
    ),
    Edit(
        "dropout.remove",
        "no dropout",
        "a training that sees its data once cannot overfit, and learns faster without noise",
        "the score falls while the training loss improves: it overfits",
        r.without_dropout,
    ),
    Edit(
        "norm.rms",
        "RMS norms, not layer norms",
        "the mean need not be taken out, which saves time (Zhang and Sennrich 2019)",
        FASTER,
        r.to_rms_norm,
    ),
    Edit(
        "bias.remove",
        "linear layers without biases",
        "fewer parameters and less work, with norms to shift for them",
        NO_GAIN,
        r.without_bias,
    ),
    Edit(
        "weights.tie",
        "tie the output weights to the embedding",
        "fewer parameters, each trained by more tokens (Press and Wolf 2017)",
        NO_GAIN,
        r.flag_set("tied?(_|$)", True),
    ),
    Edit(
        "weights.untie",
        "output weights of their own",
        "reading and predicting a token may need other vectors",
        NO_GAIN,
        r.flag_set("tied?(_|$)", False),
    ),
    Edit(
        "compile.on",
        "compile the model",
        "fused kernels save time over a long training",
        "compiling takes longer than it saves: fewer steps fit",
        r.flag_set("compile", True),
    ),
    Edit(
        "compile.off",
        "do not compile the model",
        "in a short training compiling takes longer than it saves",
        FASTER,
        r.not_compiled,
    ),
    Edit(
        "data.shuffle",
        "shuffle the training data",
        "batches of neighbouring rows have biased gradients",
        NO_GAIN,
        r.shuffled,
    ),
    Edit(
        "labels.smooth",
        "label smoothing of 0.05",
        "the model is kept from certainty about noisy labels (Szegedy et al. 2016)",
        "the score is no better, or its probabilities are worse",
        r.smoothing_added,
    ),
    Edit(
        "labels.hard",
        "no label smoothing",
        "a score of probabilities is best served by the plain loss",
        NO_GAIN,
        r.smoothing_removed,
    ),
    Edit(
        "delete.unused",
        "without functions and imports that nothing uses",
        "the shorter script of two with one score is better",
        "the script fails",
        unused,
    ),
    Edit(
        "delete.unreachable",
        "without statements that are never reached",
        "the shorter script of two with one score is better",
        "the script fails",
        unreachable,
    ),
)


def deletions(source: str) -> tuple[Edit, ...]:
    """Deletions of one helper each, for this script: the calls of it, and itself where nothing else needs it."""
    script = Script.of(source)
    found = [_without(name) for name in (helper_calls(script) if script else {})]
    return tuple(edit for edit in found if edit.applies(source))


def edits_for(source: str) -> tuple[Edit, ...]:
    """All edits that apply to a script, deletions last."""
    return (*(edit for edit in EDITS if edit.applies(source)), *deletions(source))


def edit_of(kind: str) -> Edit:
    """The edit of a kind, deletions of helpers included.

    Raises:
        KeyError: there is none.
    """
    if kind.startswith("delete.call."):
        return _without(kind.removeprefix("delete.call."))
    return next((edit for edit in EDITS if edit.kind == kind), None) or _missing(kind)


def _missing(kind: str) -> Edit:
    raise KeyError(kind)


def _without(name: str) -> Edit:
    return Edit(
        kind=f"delete.call.{name}",
        words=f"without the helper {name}()",
        why="what it does is not needed for the score, and the shorter script of two with one score is better",
        refuted_by="the score falls, or the script fails",
        make=lambda script: helper_calls(script).get(name, []),
    )
