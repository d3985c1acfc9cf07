"""What a report calls the champion: a tuned model only where weights were trained, and no gain where a run began."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from postgrad.cli.summary import closing
from postgrad.records import Difference, Recipe, ScriptSpec, SealedRead, Stage
from postgrad.report.card import model_card
from postgrad.report.champion import Tone, claim_of, trains_base
from postgrad.report.html import html_report
from postgrad.report.markdown import markdown_report
from postgrad.report.summary import headline, summary
from postgrad.report.view import RunView
from report_builders import (
    ITEMS,
    MINILM,
    Plan,
    RunWriter,
    a_card,
    a_read,
    a_score,
    a_task,
    embedder,
    finished_run,
    references,
    view_of,
)

CLASSIC = Stage(backend="classic", params={"C": 2.0})
HEAD = embedder("frozen", C=10.0)
HUB = "hf:sentence-transformers/all-MiniLM-L6-v2"


def sealed_run(champion: str, *more: Plan, value: float = 0.694) -> RunView:
    """The references and these experiments; then this one is certified and read."""
    writer = RunWriter()
    writer.start(a_task(), a_card())
    for plan in (*references(), *more):
        writer.experiment(plan)
    writer.finish(champion, "e0001", finalists=(champion,))
    writer.seal(a_read(champion, value))
    return view_of(writer)


def tried(stage: Stage, base: str | None = MINILM) -> Plan:
    return Plan("head", "something else", None, stage, base, score=0.5)


def on_screen(view: RunView) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(closing(view, Path("run")))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_budget_that_ends_with_the_references_tuned_nothing() -> None:
    view = sealed_run("e0002")
    assert headline(view) == (
        "Nothing was tuned, and the untouched base model is better than the baseline: MCC 0.69 vs 0.59, "
        "difference +0.10 [+0.05, +0.16], p < 0.001."
    )
    assert view.verdict.tone == "none", "the search gained nothing"
    assert view.verdict.remarks[:2] == (
        "The search tried nothing beyond the references that every run begins with (the wall-clock budget is spent, "
        "less what certifying needs).",
        "No weight of the base model was trained: what was fitted to the train rows stands on top of it.",
    )
    for text in (html_report(view), markdown_report(view), model_card(view, "load()"), on_screen(view)):
        assert "uned model is better" not in text
        assert "Nothing was tuned, and the untouched base model is better than the baseline" in text
        assert "No weight of the base model was trained" in text
    assert summary(view)["champion"]["reference"] == "base_model" and summary(view)["champion"]["tuned"] is False


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.694, "Nothing beat the untouched base model, which is better than the baseline"),
        (0.484, "Nothing beat the untouched base model, which is worse than the baseline"),
        (0.589, "Nothing beat the untouched base model, which shows no real difference to the baseline"),
    ],
)
def test_a_search_that_brought_nothing_says_so(value: float, said: str) -> None:
    view = sealed_run("e0002", tried(embedder("full")), tried(HEAD), value=value)
    assert view.verdict.claim == said and view.verdict.tone == "none"
    assert view.verdict.remarks[0] == (
        "None of the 2 experiments of the search was chosen over the references that every run begins with."
    )


def test_the_recipe_of_a_reference_with_another_seed_is_still_that_reference() -> None:
    again = Plan("replicate", "once more", "e0002", references()[2].stage, MINILM, score=0.6)
    assert "Nothing beat the untouched base model" in headline(sealed_run("e0003", again))
    baseline = Plan("replicate", "once more", "e0001", references()[1].stage, None, score=0.6)
    assert "Nothing beat the baseline, which is the champion" in headline(sealed_run("e0003", baseline))


def test_what_a_proposal_calls_itself_makes_it_no_reference() -> None:
    writer = RunWriter()
    writer.start(a_task(), a_card())
    for plan in (*references(), tried(embedder("full")), Plan("reference.constant", "", stage=HEAD, base_model=MINILM)):
        writer.experiment(plan)
    writer.finish("e0004", "e0001", finalists=("e0004",))
    writer.seal(a_read("e0004", 0.694))
    assert headline(view_of(writer)).startswith("The champion is better than the baseline")


@pytest.mark.parametrize(
    ("stage", "base", "claim", "remark"),
    [
        (HEAD, HUB, "The champion is better than the baseline", "No weight of the base model was trained: what was"),
        (CLASSIC, None, "The champion is better than the baseline", "No base model is in the champion: it learned"),
        (embedder("lora"), HUB, "The tuned model is better than the baseline", ""),
    ],
)
def test_only_trained_weights_make_a_tuned_model(stage: Stage, base: str | None, claim: str, remark: str) -> None:
    view = sealed_run("e0003", tried(stage, base))
    assert view.verdict.claim == claim and view.verdict.tone == "better"
    assert [said[: len(remark)] for said in view.verdict.remarks] == ([remark] if remark else [])
    assert summary(view)["champion"]["tuned"] is (not remark)
    assert ("base_model_relation: finetune" in model_card(view, "load()")) is (not remark)


def test_a_champion_that_is_the_baseline_says_what_was_tried() -> None:
    writer = RunWriter()
    writer.start(a_task(), a_card())
    for plan in (*references(), tried(HEAD)):
        writer.experiment(plan)
    writer.finish("e0001", "e0001", finalists=("e0001",))
    scores = (a_score("champion", "e0001", 0.589), a_score("baseline", "e0001", 0.589))
    gap = Difference(value=0.0, low=0.0, high=0.0, p=1.0, n=ITEMS)
    writer.seal(SealedRead(metric="mcc", scores=scores, difference=gap, mcnemar_p=1.0, n=ITEMS))
    view = view_of(writer)
    assert "The one experiment of the search was not chosen over the references" in view.verdict.remarks[0]
    assert summary(view)["champion"]["reference"] == "baseline"


@pytest.mark.parametrize(
    ("stage", "base", "trained"),
    [
        (Stage(backend="embedder"), MINILM, True),
        (Stage(backend="embedder", params={"tune": "frozen"}), MINILM, False),
        (Stage(backend="causal_lm"), MINILM, True),
        (Stage(backend="causal_lm", params={"tune": "none", "shots": 8}), MINILM, False),
        (Stage(backend="soup"), MINILM, True),
        (Stage(backend="training_hub"), MINILM, True),
        (Stage(backend="constant"), None, False),
        (Stage(backend="classic"), MINILM, False),
    ],
)
def test_which_recipes_train_the_base_model(stage: Stage, base: str | None, trained: bool) -> None:
    assert trains_base(Recipe(base_model=base, stage=stage)) is trained
    both: list[Any] = [{"stage": one.model_dump(mode="json"), "weight": 1.0} for one in (CLASSIC, stage)]
    together = Stage(backend="ensemble", params={"members": tuple(both)})
    assert trains_base(Recipe(base_model=base, stage=together)) is trained


def test_a_search_that_gained_reads_as_before() -> None:
    view = view_of(finished_run())
    assert view.verdict.tone == "better" and view.verdict.claim == "The tuned model is better than the baseline"


@pytest.mark.parametrize(
    ("tone", "said"), [("better", "The changed script is"), ("none", "the changed script and the")]
)
def test_a_script_is_no_model(tone: Tone, said: str) -> None:
    view = view_of(finished_run())
    script = ScriptSpec(
        source="job", editable=("train.py",), run=("python", "train.py"), metric="loss", direction="min"
    )
    of_script = replace(view, task=view.task.model_copy(update={"kind": "script", "script": script}))
    assert said in claim_of(of_script, tone) and "changed script" not in claim_of(view, tone)
