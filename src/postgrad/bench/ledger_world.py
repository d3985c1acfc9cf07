"""A world with the size of the public autoresearch ledger: 125 pretraining experiments scored in bits per byte.

The published facts are from the session of 8 March 2026 (karpathy/autoresearch, discussion #43 and pull request #44;
the counts are read off its `results.tsv`). Effects and noise are not published. They are drawn so that the ledger's own
rule, one training and strictly better, writes a ledger with the published summary. It does not say that the true
effects were these.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

from postgrad.bench.worlds import PARTS, Graded, Setting, Skill

# --- published ---
EXPERIMENTS, KEEPS, DISCARDS, CRASHES = 125, 22, 102, 1
START, END, GAIN = 0.9979, 0.9697, 0.0282
FIRST_BIG, BIG_SHARE, BIG_WITHIN = 3, 0.69, 8
NO_OP_GAP, SEED_GAP, SMALLEST_KEEP = 0.000365, 0.000695, 0.000031
KEEPS_BELOW_NO_OP, KEEPS_BELOW_SEED = 9, 14
NEAR, NEAR_DISCARDS = 0.001, 61
# --- assumed ---
# The pinned shard of about 21 M tokens, cut into blocks of 65,536 tokens.
BLOCKS = 320
BLOCK_SD = 0.03
# Per block: what two trainings of one recipe differ by (times the root of 2), and two recipes beyond that.
TRAINING_SD, RECIPE_SD, KEPT_BENT = 0.002, 0.003, 0.8
# How the three large gains share their part, and how often a change that is not better does harm.
BIG_PARTS = (0.45, 0.33, 0.22)


@dataclass(frozen=True)
class Size:
    """How noisy one training is, with effects under which the ledger's rule writes the published summary.

    Attributes:
        seed_sd: standard deviation of val_bpb over trainings of one recipe on the shard.
        better, gain: share of the changes that are truly better, and their mean gain (exponential).
        worse, harm: share that is truly worse, and their mean harm (exponential). The rest changes nothing.
    """

    seed_sd: float
    better: float
    gain: float
    worse: float
    harm: float


SIZES = (
    Size(0.00026, 0.09, 0.0009, 0.45, 0.0020),
    Size(0.0004, 0.14, 0.00066, 0.30, 0.0007),
    Size(0.0005, 0.29, 0.00043, 0.04, 0.0003),
    Size(0.0007, 0.72, 0.00035, 0.02, 0.0010),
)


class Pretraining(Graded):
    """Scores are negative bits per byte, so that higher is better. Gains add up, whatever they are applied to. The
    three large ones are among the first changes. Blocks have heavy tails, as in `Graded`.

    Args:
        size: noise and effects.
        block_sd: by how much blocks differ from each other, for one model.
    """

    start_score, kept_taste = -START, KEPT_BENT

    def __init__(self, size: Size = SIZES[1], block_sd: float = BLOCK_SD) -> None:
        super().__init__()
        self.size = size
        self.difficulty, self.luck = block_sd**2, TRAINING_SD**2
        self.taste = RECIPE_SD**2 / (2 * (1 - KEPT_BENT))

    def start(self, setting: Setting, seed: int) -> Skill:
        self.setting, self.seed = setting, seed
        self.shift = sqrt(self.size.seed_sd**2 - self.luck / setting.items)
        self.hard = {part: self._normal(self._rng(1, PARTS.index(part)), self.difficulty) for part in PARTS}
        at = self._rng(6).choice(BIG_WITHIN - 1, FIRST_BIG, replace=False)
        self.big = {int(number): part * BIG_SHARE * GAIN for number, part in zip(at, BIG_PARTS, strict=True)}
        return Skill(self.start_score, self.start_score, number=-1)

    def propose(self, recipe: Skill, number: int) -> Skill:
        rng = self._rng(3, number)
        draw, amount = rng.random(), rng.exponential()
        if draw < self.size.better:
            change = self.size.gain * amount
        else:
            change = -self.size.harm * amount if draw < self.size.better + self.size.worse else 0.0
        score = recipe.score + self.big.get(number, change)
        return Skill(score, score, number=number, parent=recipe)

    def truth(self, recipe: Skill) -> float:
        return recipe.score
