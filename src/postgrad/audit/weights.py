"""Where the final weights come from: the chain of the log, and what the files themselves say."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Iterator

from postgrad.audit.case import About, AuditCheck, Case, State
from postgrad.errors import PostgradError
from postgrad.events import JobStarted
from postgrad.records import Record
from postgrad.train.lineage import FAR, UNTRAINED, Distance, Encoder, differences, distance, encoders
from postgrad.train.lm_lineage import claims, language_differences, language_distance
from postgrad.train.models import model_hash

# Long pretraining of a small language model moves it farther than an encoder is ever tuned; unrelated weights lie at
# about 1.4.
LANGUAGE_FAR = 0.5


class EncoderDistance(Record):
    """How far one encoder or language model of the final model is from the base."""

    encoder: str
    tune: str
    distance: Distance


def _check(about: About, name: str, state: State, words: str) -> AuditCheck:
    return AuditCheck(about=about, name=name, state=state, words=words)


def lineage_checks(case: Case, folder: Path, published: Path) -> Iterator[AuditCheck]:
    """From the weights back to the base model.

    Args:
        folder: the stored final model, restored.
        published: where the run keeps it for people.
    """
    yield _job(case)
    yield _recipe(case, folder)
    yield _published(folder, published)
    yield _base(case)


def _job(case: Case) -> AuditCheck:
    name = "a logged job made the weights"
    assert case.final is not None and case.model is not None
    started = [
        event.seq for event in case.events if isinstance(event.body, JobStarted) and event.body.job == case.final.job
    ]
    if not started:
        return _check("lineage", name, "finding", f"The log holds the end of job {case.final.job} and no beginning.")
    words = f"Weights {case.model[:12]}, job {case.final.job}, experiment {case.champion}, recipe {case.recipe.hash}."
    return _check("lineage", name, "clean", words)


def _recipe(case: Case, folder: Path) -> AuditCheck:
    name = "the weights name that recipe and seed"
    facts = case.model_facts(folder)
    wanted = {"recipe": case.recipe.model_dump(mode="json"), "seed": case.seed}
    other = [key for key, value in wanted.items() if facts.get(key) != value]
    if other:
        words = f"The {' and the '.join(other)} in the model's postgrad.json are not those of {case.champion}."
        return _check("lineage", name, "finding", words)
    return _check("lineage", name, "clean", f"postgrad.json says the same as the log: seed {case.seed}.")


def _published(folder: Path, published: Path) -> AuditCheck:
    name = "the model folder holds these weights"
    if not published.is_dir():
        return _check("lineage", name, "unknown", f"There is no folder {published.name} in the run.")
    stored, shown = _hashes(folder), _hashes(published)
    odd = sorted(file for file in stored.keys() | shown.keys() if stored.get(file) != shown.get(file))
    if odd:
        words = f"{len(odd)} files in {published.name}/ are not what the job saved ({odd[0]}): somebody changed them."
        return _check("lineage", name, "finding", words)
    return _check("lineage", name, "clean", f"All {len(stored)} files are what the job saved.")


def _hashes(folder: Path) -> dict[str, str]:
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                found[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _base(case: Case) -> AuditCheck:
    name = "the base model is known by its content"
    reference = case.recipe.base_model
    if reference is None:
        return _check("lineage", name, "clean", "No base model: the weights come from the training rows alone.")
    logged = case.base_hashes()
    known = [value for value in logged if value is not None]
    if len(known) > 1:
        words = f"{reference} had {len(known)} contents during the run ({', '.join(v[:12] for v in known)})."
        return _check("lineage", name, "finding", words)
    if not known or None in logged:
        words = f"The log does not hold the content hash of {reference}: the run, or a part of it, is older."
        return _check("lineage", name, "unknown", words)
    if case.base is None:
        return _check("lineage", name, "unknown", f"{reference} ({known[0][:12]}) is not at hand to be compared.")
    here = model_hash(case.base)
    if here != known[0]:
        words = f"{reference} at hand is another one ({here[:12]}) than the run trained ({known[0][:12]})."
        return _check("lineage", name, "unknown", words)
    return _check("lineage", name, "clean", f"{reference}, content {here[:12]}, in the log and at hand.")


def base_at_hand(case: Case) -> bool:
    """True when the base model here may be compared with the final one: nothing says that it is another."""
    known = [value for value in case.base_hashes() if value is not None]
    return case.base is not None and (not known or known == [model_hash(case.base)])


def weight_checks(case: Case, folder: Path) -> Iterator[tuple[AuditCheck, EncoderDistance | None]]:
    """Architecture, tokenizer and weights of every encoder and language model in the final model against the base."""
    found = list(encoders(case.recipe.stage, folder))
    if not found:
        backend = case.recipe.stage.backend
        words = f"The backend {backend} keeps no copy of a base model: nothing to compare."
        yield _check("configuration", "same architecture and tokenizer", "clean", words), None
        yield _check("weights", "distance to the base model", "clean", words), None
        return
    for encoder in found:
        yield from _compared(case, encoder)


def _compared(case: Case, encoder: Encoder) -> Iterator[tuple[AuditCheck, EncoderDistance | None]]:
    what = "architecture, vocabulary and chat template" if encoder.language else "architecture and tokenizer"
    names = f"{encoder.name}: same {what}", f"{encoder.name}: distance to the base model"
    if case.base is None or not base_at_hand(case):
        words = "The base model of the run is not at hand."
        yield _check("configuration", names[0], "unknown", words), None
        yield _check("weights", names[1], "unknown", words), None
        return
    settings, apart = (differences, distance) if encoder.language is None else (language_differences, language_distance)
    try:
        if encoder.language is not None:
            yield _claims(encoder.name, claims(encoder.folder.parent, case.base, encoder.language)), None
        odd = settings(case.base, encoder.folder)
        away = apart(case.base, encoder.folder, encoder.tune)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as broken:
        yield _check("weights", names[1], "finding", f"The saved model cannot be read: {broken}."), None
        return
    words = f"{'; '.join(odd)}." if odd else "The same, but for what a library writes of itself when it saves."
    yield _check("configuration", names[0], "finding" if odd else "clean", words), None
    yield _distance(names[1], encoder, away), EncoderDistance(encoder=encoder.name, tune=encoder.tune, distance=away)


def _claims(name: str, odd: tuple[str, ...]) -> AuditCheck:
    words = f"{'; '.join(odd)}." if odd else "Its base model, its parameters and its stages are those of the recipe."
    return _check("lineage", f"{name}: what it says of itself", "finding" if odd else "clean", words)


def _distance(name: str, encoder: Encoder, away: Distance) -> AuditCheck:
    problems = away.problems(encoder.tune, LANGUAGE_FAR if encoder.language else FAR)
    if problems:
        return _check("weights", name, "finding", f"{'; '.join(problems)}.")
    if encoder.tune in UNTRAINED:
        words = f"The recipe trains nothing of it, and all {away.tensors} tensors are the base's own."
    else:
        words = (
            f"{away.total:.4f} of the base's length, in {away.moved} of {away.tensors} tensors; none has moved that "
            f"{encoder.tune} tuning leaves alone."
        )
    return _check("weights", name, "clean", words)


def restored(case: Case, folder: Path) -> AuditCheck | None:
    """Put the stored final model into `folder`; a finding where there is none or it is damaged."""
    name = "the final weights are stored"
    if case.model is None:
        words = f"No final weights of {case.champion} are on record."
        return _check("lineage", name, "finding", words)
    try:
        case.store.artifacts.restore_folder(case.model, folder)
    except PostgradError as problem:
        return _check("lineage", name, "finding", str(problem))
    return None
