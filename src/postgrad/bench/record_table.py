"""What a recording holds, and how well search scores order its recipes: rank correlations with the sealed score."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Mapping, Sequence

from postgrad.bench.landscapes_features import features
from postgrad.bench.record_names import shape
from postgrad.bench.recorded_file import Recording, Tried

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

REPEATS = 1000
FEWEST = 10
# The share of out-of-scope questions that the threshold rule assumes.
OUTSIDE_SHARE = 0.45

Scores = Callable[[Recording, Sequence[Tried]], "NDArray[np.float64]"]


def facts_of(name: str, found: Recording) -> dict[str, Any]:
    """Counts of one recording."""
    tried = list(found.tried.values())
    failures = [failure for each in tried for failure in each.failures if failure is not None]
    truths = sorted(each.truth for each in tried if each.stood)
    return {
        "data set": name,
        "recipes": len(tried),
        "structures": len({shape(each.recipe) for each in tried}),
        "trainings": sum(len(each.failures) for each in tried),
        "failures": len(failures),
        "folds": found.folds,
        "search items": found.facts["items"]["search"],
        "select": found.facts["items"]["select"],
        "sealed": found.facts["items"]["sealed"],
        "seconds": round(sum(sum(each.seconds) for each in tried)),
        "lowest": round(truths[0], 3),
        "median": round(truths[len(truths) // 2], 3),
        "best": round(truths[-1], 3),
    }


def correlations(found: Recording, seed: int = 0) -> dict[str, dict[str, float]]:
    """Name of a score -> Spearman's rank correlation with the sealed score, its 95 % interval over recipes drawn again,
    and how far the recipe that it puts first is behind the best. Over recipes that never failed, the constant answer
    left out; none where there are fewer than ten."""
    import numpy as np

    tried = [
        t for t in found.tried.values() if len(t.stood) == len(t.failures) and t.recipe.stage.backend != "constant"
    ]
    if len(tried) < FEWEST:
        return {}
    truth = np.array([each.truth for each in tried])
    generator = np.random.default_rng(seed)
    draws = generator.integers(0, len(tried), (REPEATS, len(tried)))
    result = {}
    for name, made in SCORES.items():
        scores = made(found, tried)
        if not scores.size:
            continue
        values = [_spearman(each, truth) for each in scores]
        again = [np.mean([_spearman(each[d], truth[d]) for each in scores]) for d in draws]
        low, high = np.nanquantile(again, (0.025, 0.975))
        lost = float(np.mean([truth.max() - truth[int(each.argmax())] for each in scores]))
        result[name] = {
            "rho": round(float(np.mean(values)), 3),
            "low": round(float(low), 3),
            "high": round(float(high), 3),
            "behind": round(lost, 4),
            "recipes": len(tried),
        }
    return result


def _spearman(one: NDArray[np.float64], two: NDArray[np.float64]) -> float:
    import numpy as np
    from scipy.stats import rankdata

    first, second = (np.asarray(rankdata(values), dtype=np.float64) for values in (one, two))
    first, second = first - first.mean(), second - second.mean()
    length = float(np.sqrt((first @ first) * (second @ second)))
    return float(first @ second) / length if length else float("nan")


# --- scores: (R, recipes), R of them that say the same with other folds or seeds ---------------------------------


def _search(tried: Sequence[Tried]) -> NDArray[np.float64]:
    """(recipes, seeds, items)."""
    import numpy as np

    return np.stack([each.search for each in tried]).astype(np.float64)


def _one_fold(found: Recording, tried: Sequence[Tried]) -> NDArray[np.float64]:
    import numpy as np

    right = _search(tried)
    by_fold = [right[:, :, found.fold == fold].mean(2) for fold in range(found.folds)]
    return np.concatenate([each.T for each in by_fold])


def _one_seed(found: Recording, tried: Sequence[Tried]) -> NDArray[np.float64]:
    import numpy as np

    return np.asarray(_search(tried).mean(2).T)


def _all(found: Recording, tried: Sequence[Tried]) -> NDArray[np.float64]:
    import numpy as np

    return np.asarray(_search(tried).mean((1, 2))[None, :])


def _weighed(found: Recording, tried: Sequence[Tried]) -> NDArray[np.float64]:
    """Out-of-scope questions weighted to the share that the threshold rule assumes."""
    import numpy as np

    outside = found.outside["search"]
    if not outside.any():
        return np.zeros((0, len(tried)))
    right = _search(tried).mean(1)
    inside = right[:, ~outside].mean(1)
    return np.asarray((1 - OUTSIDE_SHARE) * inside + OUTSIDE_SHARE * right[:, outside].mean(1))[None, :]


def _smoothed(found: Recording, tried: Sequence[Tried]) -> NDArray[np.float64]:
    """The mean of a recipe's score and what ridge regression on parts and numbers says that it should be."""
    import numpy as np
    from sklearn.linear_model import RidgeCV

    score = _all(found, tried)[0]
    rows: list[Mapping[str, float]] = []
    for each in tried:
        known = features(each.recipe)
        rows.append(dict(known.parts) | {name: 0.5 + weight * (place - 0.5) for name, place, weight in known.numbers})
    names = sorted({name for row in rows for name in row})
    matrix = np.array([[row.get(name, 0.0) for name in names] for row in rows])
    fit = RidgeCV(alphas=np.logspace(-2, 3, 11)).fit(matrix, score)
    return np.asarray((score + fit.predict(matrix)) / 2)[None, :]


def _select(found: Recording, tried: Sequence[Tried]) -> NDArray[np.float64]:
    import numpy as np

    return np.stack([each.select.mean(1) for each in tried]).astype(np.float64).T


SCORES: dict[str, Scores] = {
    "one fold, one seed": _one_fold,
    "all folds, one seed": _one_seed,
    "all folds, two seeds": _all,
    "two seeds, out of scope at 45 %": _weighed,
    "two seeds, smoothed over structure": _smoothed,
    "select questions, one seed": _select,
}


# --- words ------------------------------------------------------------------------------------------------------------


def markdown(rows: Sequence[Mapping[str, Any]], found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Two tables: what was recorded, and the correlations."""
    head = list(rows[0]) if rows else []
    lines = ["## What was recorded", "", f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    lines += [f"| {' | '.join(str(row[key]) for key in head)} |" for row in rows]
    names = list(found)
    lines += ["", "## Rank correlation of search with sealed score", ""]
    lines += [f"| score | {' | '.join(names)} |", f"| --- |{' --- |' * len(names)}"]
    for score in SCORES:
        lines.append(f"| {score} | {' | '.join(_cell(found[name].get(score)) for name in names)} |")
    lines += [
        "",
        "Spearman's rho over the recipes that never failed, the constant answer left out, with the 95 % interval of",
        "1,000 draws of the recipes; in brackets how far the recipe that it puts first is behind the best, in points.",
        "",
    ]
    return "\n".join(lines)


def _cell(found: Mapping[str, float] | None) -> str:
    if found is None:
        return "-"
    return f"{found['rho']:.2f} ({found['low']:.2f} to {found['high']:.2f}) [{100 * found['behind']:.1f}]"
