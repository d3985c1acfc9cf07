"""Data operators: one line here each."""

from postgrad.data.base import Operator
from postgrad.registry import Registry

OPERATORS: Registry[Operator] = Registry(
    "data operator",
    "postgrad.operators",
    {
        "normalise": "postgrad.data.normalise:Normalise",
        "dedup": "postgrad.data.dedup:Dedup",
        "clean_labels": "postgrad.data.clean:CleanLabels",
        "balance": "postgrad.data.balance:Balance",
        "typos": "postgrad.data.augment:Typos",
        "word_dropout": "postgrad.data.augment:WordDropout",
        "near_misses": "postgrad.data.negatives:NearMisses",
        "background": "postgrad.data.negatives:Background",
        "held_out_intents": "postgrad.data.negatives:HeldOutIntents",
    },
)
