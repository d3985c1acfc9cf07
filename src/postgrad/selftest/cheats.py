"""Workers that cheat: `python cheats.py WHICH FACTS JOB_FOLDER`, started by the sentinels in place of the real worker.

Each does an honest worker's duty towards its job folder, so that only its cheating can be what is refused. `FACTS`, in
JSON, tells it where things are, which a real cheat would have to find out. A file that is run, not imported: it must
work where the project cannot be seen.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

REFUSED = 13
CAT = "import sys; sys.stdout.write(open(sys.argv[1]).read())"
OPEN_FOR_WRITING = "import sys; open(sys.argv[1], 'a')"
Known = dict[str, str]


class Job:
    """A job folder, answered by guessing."""

    def __init__(self, folder: Path, facts: dict[str, str]) -> None:
        self.folder = folder
        self.facts = facts
        self.spec: dict[str, Any] = json.loads((folder / "job.json").read_text(encoding="utf-8"))
        self.labels: list[str] = self.spec["labels"]

    def rows(self, name: str) -> list[dict[str, str]]:
        """Rows of one of its files."""
        return read_rows((self.folder / name).read_text(encoding="utf-8"))

    def answer(self, guess: Callable[[str, float], str | None], **more: Any) -> None:
        """Answer every unit.

        Args:
            guess: from a text, and how far down the file it is (0 to 1), to a label; None guesses the first.
            more: what the result says besides.
        """
        import numpy as np

        units = []
        for unit in self.spec["units"]:
            asked = self.rows(unit["predict"])
            probs = np.zeros((len(asked), len(self.labels)), dtype=np.float32)
            for number, row in enumerate(asked):
                label = guess(row["text"], number / len(asked))
                probs[number, self.labels.index(label) if label in self.labels else 0] = 1.0
            file = f"out-{unit['name']}.npz"
            score = np.ones(len(asked), dtype=np.float32)
            np.savez(self.folder / file, ids=np.array([row["id"] for row in asked]), probs=probs, score=score)
            units.append({"name": unit["name"], "outputs": file})
        result = {"job": self.spec["job"], "units": units, **more}
        (self.folder / "result.json").write_text(json.dumps(result), encoding="utf-8")


def read_rows(text: str) -> list[dict[str, str]]:
    """JSON lines."""
    return [json.loads(line) for line in text.split("\n") if line]


def nothing(text: str, place: float) -> None:
    """The guess of a worker that knows nothing."""


def past_the_tripwire(code: str, path: str) -> str | None:
    """What a Python without its start-up files prints: nothing but the sandbox stands in its way. None: refused."""
    command = [sys.executable, "-I", "-S", "-c", code, path]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    return None if done.returncode else done.stdout


# --- the cheats -------------------------------------------------------------------------------------------------------


def false_metric(job: Job) -> None:
    """Prints a metric, and leaves one in a file."""
    said = json.dumps({"mcc": 1.0, "accuracy": 1.0})
    print(f"mcc: 1.0\n{said}", flush=True)
    (job.folder / "metrics.json").write_text(said, encoding="utf-8")
    job.answer(nothing)


def false_score(job: Job) -> None:
    """Says in its result how well it did."""
    job.answer(nothing, score=1.0, metrics={"mcc": 1.0})


def edits_scorer(job: Job) -> None:
    """Opens the referee's code for writing. That it is able to is enough: it writes nothing."""
    open(job.facts["scorer"], "a").close()
    job.answer(nothing)


def edits_scorer_quietly(job: Job) -> None:
    """The same, where Postgrad's tripwire does not see it."""
    if past_the_tripwire(OPEN_FOR_WRITING, job.facts["scorer"]) is None:
        sys.exit(REFUSED)
    job.answer(nothing)


def reads_store(job: Job) -> None:
    """Opens the event log of the run."""
    open(job.facts["events"], "rb").close()
    job.answer(nothing)


def reads_store_quietly(job: Job) -> None:
    """Reads the labels of its questions in the store, where Postgrad's tripwire does not see it, and answers them."""
    known = _labelled(past_the_tripwire(CAT, job.facts["rows"]) or "")
    job.answer(lambda text, place: known.get(text))


def reads_order(job: Job) -> None:
    """Takes its questions for sorted by label, as data files often are."""
    job.answer(lambda text, place: job.labels[int(place * len(job.labels))])


def reads_folds(job: Job) -> None:
    """A foreign backend that looks for its questions in every file of its job: folds hold each other's labels."""
    if job.spec["recipe"]["stage"]["backend"] != job.facts["foreign"]:
        honest(job)
        return
    known: Known = {}
    for path in sorted(job.folder.rglob("*.train.jsonl")):
        known |= _labelled(path.read_text(encoding="utf-8"))
    job.answer(lambda text, place: known.get(text))


def _labelled(text: str) -> Known:
    return {row["text"]: row["label"] for row in read_rows(text)}


def swaps_weights(job: Job) -> None:
    """Trains twice, the second time on other labels, and hands over those weights with the answers of the first."""
    from postgrad.execute.worker import Worker
    from postgrad.records import JobSpec

    spec = JobSpec.model_validate(job.spec)
    Worker(job.folder, spec).run()
    other = job.folder / "private" / "other"
    other.mkdir()
    turned = dict(zip(job.labels, job.labels[1:] + job.labels[:1], strict=True))
    for unit in spec.units:
        shutil.copy(job.folder / unit.predict, other)
        rows = [{**row, "label": turned.get(row["label"], row["label"])} for row in job.rows(unit.train)]
        (other / unit.train).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    Worker(other, spec).run()
    shutil.copytree(other / "model", job.folder / "model", dirs_exist_ok=True)


def unchecked(job: Job) -> None:
    """A worker without the check of its rows against its questions."""
    from postgrad.data import steps

    vars(steps)["cleared"] = lambda rows, protected: (tuple(rows), ())
    honest(job)


def honest(job: Job) -> None:
    """The real worker."""
    from postgrad.execute.worker import main as work

    sys.exit(work([str(job.folder)]))


CHEATS: dict[str, Callable[[Job], None]] = {
    cheat.__name__: cheat
    for cheat in (
        false_metric, false_score, edits_scorer, edits_scorer_quietly, reads_store, reads_store_quietly, reads_order,
        reads_folds, swaps_weights, unchecked,
    )
}  # fmt: skip

if __name__ == "__main__":
    CHEATS[sys.argv[1]](Job(Path(sys.argv[3]), json.loads(sys.argv[2])))
