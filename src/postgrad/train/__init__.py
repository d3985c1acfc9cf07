"""Training backends: one file each, one line here."""

from postgrad.registry import Registry
from postgrad.train.base import Backend

BACKENDS: Registry[Backend] = Registry(
    "backend",
    "postgrad.backends",
    {
        "causal_lm": "postgrad.train.causal_lm:CausalLM",
        "constant": "postgrad.train.constant:Constant",
        "classic": "postgrad.train.classic:Classic",
        "embedder": "postgrad.train.embedder:Embedder",
        "ensemble": "postgrad.train.ensemble:Ensemble",
        "nearest": "postgrad.train.nearest:Nearest",
        "script": "postgrad.train.script:Script",
        "soup": "postgrad.train.soup:Soup",
        "training_hub": "postgrad.train.training_hub:TrainingHub",
    },
)
