"""Every backend keeps the contract, and what each does of its own."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from postgrad.errors import UserError
from postgrad.train import BACKENDS, scores
from postgrad.train.base import FitJob, TrainingDiverged
from postgrad.train.classic import Classic
from postgrad.train.constant import Constant
from postgrad.train.embedder import Embedder, EmbedderParams
from postgrad.train.ensemble import Ensemble
from postgrad.testing.backend import LABELS, OUTSIDE, WORDS, BackendContract, example_rows, negative_rows
from postgrad.testing.encoder import make_tiny_encoder

SMALL: dict[str, Any] = {"batch_size": 8, "lr": 2e-3, "head_lr": 2e-2, "epochs": 4, "precision": "fp32"}


@cache
def tiny_encoder() -> Path:
    """One for all tests of this process; the system clears its folder for temporary files."""
    words = {word for phrases in WORDS.values() for phrase in phrases for word in phrase.split()}
    return make_tiny_encoder(Path(mkdtemp(prefix="postgrad-tiny-")), sorted(words))
