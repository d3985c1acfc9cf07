"""The sealed read of a script: champion and baseline, each trained with several fresh seeds, on the hidden sealed file.

A gain on one seed is mostly luck where seeds differ more than recipes do: intervals hold the noise of items and of
seeds. Reads once for each end of the run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Iterable, Sequence

from postgrad.errors import PostgradError
from postgrad.evaluate.sealed import confidence_of
from postgrad.events import SealedDone
from postgrad.records import Difference, Estimate, SealedRead, SealedScore
from postgrad.scripts.session import TRAININGS, ScriptSession
from postgrad.session import Job

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FURTHER_SEEDS = 1_000
PRINTED = "the number is what the script printed, which nobody checked: it is the script's own word"
ONE_EACH = "one training of each side gave a number, so how much seeds matter is not known"


def seal_script(session: ScriptSession, run_jobs: Callable[[Sequence[Job], str], None], first: dict[str, Job]) -> None:
    """Train what is owed, and read.

    Args:
        first: role -> the final training whose files are kept; the first is the champion's.

    Raises:
        PostgradError: no training of one side gave a number.
    """
    jobs = {role: [job, *_further(job)] for role, job in first.items()}
    # Where nothing was better than the source, both roles are one experiment.
    run_jobs(tuple({job.id: job for each in jobs.values() for job in each}.values()), "training with fresh seeds")
    found = {role: _values(session, each) for role, each in jobs.items()}
    names = sorted(set.intersection(*(set(items) for each in found.values() for items in each)))
    if not names:
        raise PostgradError(
            "The referee named other items in each of the final trainings, so they cannot be compared. Let it give an "
            "item the same name every time."
        )
    import numpy as np

    grids = {
        role: np.array([[items[name] for name in names] for items in each], dtype=np.float64)
        for role, each in found.items()
    }
    number = session.reads + 1
    confidence = confidence_of(number)
    champion, baseline = grids.values()
    gap = difference_of(champion, baseline, confidence)
    refused = PRINTED if not session.script.trusted else None if max(map(len, grids.values())) > 1 else ONE_EACH
    outputs = {role: session.finished[job.id].result.units[0].outputs for role, job in first.items()}
    scores = [
        SealedScore.model_validate(
            {
                "role": role,
                "experiment": job.experiment,
                "estimate": estimate_of(grids[role], confidence, grids.values()),
                "metrics": {session.task.metric: float(grids[role].mean())},
                "threshold": None,
                "outputs": outputs[role],
                "gap": None if role == "champion" else gap,
            }
        )
        for role, job in first.items()
    ]
    read = SealedRead(
        metric=session.task.metric,
        scores=tuple(scores),
        difference=gap,
        mcnemar_p=gap.p,
        n=len(names),
        confidence=confidence,
        refused=refused,
    )
    session.append(SealedDone(read=read, number=number, reason=session.reopened.reason if session.reopened else None))


def _further(job: Job) -> list[Job]:
    seeds = [job.seed + FURTHER_SEEDS * more for more in range(1, TRAININGS)]
    return [Job(job.experiment, job.purpose, job.units, job.recipe, seed) for seed in seeds]


def _values(session: ScriptSession, jobs: Sequence[Job]) -> list[dict[str, float]]:
    """Item -> number of each training that ended well."""
    results = [session.finished[job.id].result for job in jobs]
    found = []
    for result in results:
        if result.failure is None:
            outputs = session.texts(result.units[0].outputs)
            found.append(dict(zip(outputs.ids, map(float, outputs.texts), strict=True)))
    if results[0].failure is not None or not found:
        failure = results[0].failure
        raise PostgradError(
            f"The final training of {jobs[0].experiment} gave no number ({failure.kind if failure else 'unknown'}): "
            f"{failure.message if failure else ''} `postgrad resume {session.run}` tries it once more."
        )
    return found


def difference_of(first: NDArray[np.float64], second: NDArray[np.float64], confidence: float) -> Difference:
    """Mean of one recipe less that of another, with the noise of items and of seeds.

    Items are paired and shared by all trainings, so their variance does not shrink with seeds; the seeds of the two
    sides are different ones. A side of which one training is left is taken to depend on seeds as the other does.
    Welch-Satterthwaite degrees of freedom (B. L. Welch, Biometrika 34 (1947) 28-35).

    Args:
        first, second: (trainings, N) values of the same items.
    """
    from scipy.stats import t

    value = float(first.mean() - second.mean())
    seeds = [_seed_part(side, (first, second)) for side in (first, second)]
    total, freedom = _whole([_item_part(first.mean(axis=0) - second.mean(axis=0)), *seeds])
    if total <= 0:
        return Difference(value=value, low=value, high=value, p=float(value == 0), n=first.shape[1])
    error = total**0.5
    half = float(t.ppf((1 + confidence) / 2, freedom)) * error
    p = float(2 * t.sf(abs(value) / error, freedom))
    return Difference(value=value, low=value - half, high=value + half, p=p, n=first.shape[1])


def estimate_of(values: NDArray[np.float64], confidence: float, sides: Iterable[NDArray[np.float64]] = ()) -> Estimate:
    """(trainings, N) values -> their mean, with the noise of items and of seeds; of seeds from all `sides` where these
    are of one training."""
    from scipy.stats import t

    value = float(values.mean())
    total, freedom = _whole([_item_part(values.mean(axis=0)), _seed_part(values, sides)])
    half = float(t.ppf((1 + confidence) / 2, freedom)) * total**0.5 if total > 0 else 0.0
    return Estimate(value=value, low=value - half, high=value + half, n=values.shape[1])


def _item_part(values: NDArray[np.float64]) -> tuple[float, float]:
    """(variance of the mean, degrees of freedom) through items."""
    count = len(values)
    return (float(values.var(ddof=1)) / count, count - 1.0) if count > 1 else (0.0, 1.0)


def _seed_part(values: NDArray[np.float64], sides: Iterable[NDArray[np.float64]]) -> tuple[float, float]:
    """The same through seeds. One training says nothing of them: then what the sides say that have more."""
    known = [side.mean(axis=1) for side in ([values] if len(values) > 1 else sides) if len(side) > 1]
    if not known:
        return 0.0, 1.0
    scores = max(known, key=lambda each: float(each.var(ddof=1)))
    return float(scores.var(ddof=1)) / len(values), len(scores) - 1.0


def _whole(parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    total = sum(variance for variance, _ in parts)
    below = sum(variance**2 / degrees for variance, degrees in parts)
    return total, total**2 / below if below > 0 else 1.0
