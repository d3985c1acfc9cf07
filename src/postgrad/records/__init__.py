"""Every value that flows between the steps: frozen, versioned, JSON-round-trip.

Models, tokenizers, processes and handles never enter a record. A record that is written to the store can be read back
by the same or a newer Postgrad; `SCHEMA` counts breaking changes of the whole set.

Units: times are seconds, memory is megabytes, money is US dollars, scores are in [0, 1] (MCC in [-1, 1]).
"""

from postgrad.records.base import SCHEMA, Record, Row, Split, Value, content_hash
from postgrad.records.evaluation import (
    Analysis,
    Blame,
    Confusion,
    DataCard,
    Difference,
    Estimate,
    Evaluation,
    JudgeControl,
    Lesson,
    Prior,
    Race,
    Remembered,
    SealedRead,
    SealedScore,
)
from postgrad.records.job import Failure, JobResult, JobSpec, Limits, StepReport, Unit, UnitResult, Usage
from postgrad.records.recipe import Asked, Choice, Dimension, Move, Proposal, Recipe, Sketch, Stage, Step
from postgrad.records.researcher import ModelSpec, Rates, ResearcherSpec, called
from postgrad.records.task import (
    Budget,
    DataSpec,
    EngineSpec,
    Generation,
    Guard,
    JudgeSpec,
    SearchSpec,
    Slice,
    TaskSpec,
)

__all__ = [
    "Analysis",
    "Asked",
    "Blame",
    "Budget",
    "Choice",
    "Confusion",
    "DataCard",
    "DataSpec",
    "Difference",
    "Dimension",
    "EngineSpec",
    "Estimate",
    "Evaluation",
    "Failure",
    "Generation",
    "Guard",
    "JobResult",
    "JobSpec",
    "JudgeControl",
    "JudgeSpec",
    "Lesson",
    "Limits",
    "ModelSpec",
    "Move",
    "Prior",
    "Proposal",
    "Race",
    "Rates",
    "Recipe",
    "Record",
    "Remembered",
    "ResearcherSpec",
    "Row",
    "SCHEMA",
    "SealedRead",
    "SealedScore",
    "SearchSpec",
    "Sketch",
    "Slice",
    "Split",
    "Stage",
    "Step",
    "StepReport",
    "TaskSpec",
    "Unit",
    "UnitResult",
    "Usage",
    "Value",
    "called",
    "content_hash",
]
