"""The report: what it says of a run, that it holds together as a page, and that texts from data stay texts."""

from __future__ import annotations

import html as html_entities
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from postgrad.errors import UserError
from postgrad.events import RunEnded, RunResumed, SearchEnded
from postgrad.records import Budget, Difference, Estimate, Guard, SealedRead, StepReport
from postgrad.report import wording
from postgrad.report.card import model_card
from postgrad.report.html import html_report, minus
from postgrad.report.markdown import block, code, escape, markdown_report
from postgrad.report.pictures import champion_curve, legend, search_tree
from postgrad.report.summary import headline, summary
from postgrad.report.svg import tag, ticks, time_ticks
from postgrad.report.tree_picture import lanes
from postgrad.report.tried import mean_effect
from postgrad.report.view import RunView, build_view
from postgrad.tree import Tree
from report_builders import (
    ITEMS,
    TEXTS,
    Plan,
    RunWriter,
    a_card,
    a_plan,
    a_read,
    a_score,
    a_task,
    finished_run,
    large_run,
    references,
    run_under_way,
    view_of,
)

EVIL = (
    "<script>alert(1)</script><img src=x onerror=alert(1)> \"' "
    "[a](javascript:alert(1)) ![b](http://x.org/y) `|` {{7*7}}"
)
VOID = {"meta", "br", "link", "img", "input", "hr"}


@pytest.fixture(scope="module")
def finished() -> RunView:
    return view_of(finished_run())


@pytest.fixture(scope="module")
def open_run() -> RunView:
    return view_of(run_under_way())


@pytest.fixture(scope="module")
def large() -> RunView:
    return view_of(large_run())


def just_started() -> RunWriter:
    writer = RunWriter()
    writer.start(a_task(), a_card())
    return writer


# --- the summary ----------------------------------------------------------------------------------------------------


def test_summary_of_a_finished_run(finished: RunView) -> None:
    found = summary(finished)
    assert list(found) == [
        "run",
        "task",
        "experiments",
        "failures",
        "failure_causes",
        "champion",
        "certified",
        "sealed",
        "optimism_gap",
        "looks",
        "sealed_reads",
        "spent",
        "granted",
        "model_dir",
        "report",
    ]
    assert (found["run"], found["task"], found["experiments"], found["failures"]) == ("maison-001", "maison", 30, 3)
    assert found["champion"] == {
        "experiment": "e0028",
        "recipe_hash": finished.tree["e0028"].proposed.proposal.recipe.hash,
        "reference": None,
        "tuned": True,
    }
    assert list(found["sealed"]) == [
        "metric",
        "baseline",
        "champion",
        "difference",
        "ci95",
        "p",
        "mcnemar_p",
        "confidence",
    ]
    assert found["sealed"]["metric"] == "mcc"
    assert (found["sealed"]["baseline"], found["sealed"]["champion"]) == (0.589, 0.694)
    assert found["sealed"]["difference"] == pytest.approx(0.105)
    assert found["sealed"]["ci95"] == pytest.approx([0.053, 0.157])
    assert found["optimism_gap"] == pytest.approx(0.719 - 0.694)
    assert found["looks"] == {"search": 26, "select": 3, "sealed": 1}
    assert found["spent"]["wall_s"] == pytest.approx(finished_run().clock)
    assert found["granted"]["wall_s"] == 900.0
    assert json.loads(json.dumps(found)) == found


def test_summary_before_the_sealed_read_says_why_it_is_null(open_run: RunView) -> None:
    found = summary(open_run)
    assert found["sealed"] is None
    assert found["optimism_gap"] is None
    assert found["sealed_reason"] == "the search has not ended"
    assert found["champion"]["experiment"] == "e0028"
    assert found["looks"]["sealed"] == 0


@pytest.mark.parametrize(
    ("stage", "words"),
    [("search", "finalists are not certified"), ("certified", "final training is not finished"), ("ended", "broken")],
)
def test_the_reason_follows_the_stage(stage: str, words: str) -> None:
    writer = run_under_way()
    if stage == "search":
        writer.add(SearchEnded(reason="done", finalists=("e0028",)))
    else:
        writer.finish("e0028", "e0001")
    if stage == "ended":
        writer.add(RunEnded(reason="broken", wall_s=1.0))
    assert words in (view_of(writer).unsealed_reason or "")


def test_a_run_without_any_experiment_has_a_summary_and_pages() -> None:
    view = view_of(just_started())
    found = summary(view)
    assert found["champion"] is None
    assert found["experiments"] == 0
    assert "no experiment has a score" in headline(view)
    assert "No experiment" in html_report(view)
    assert "No experiment" in markdown_report(view)


def test_events_that_are_no_run_are_refused(finished: RunView) -> None:
    with pytest.raises(UserError, match="no run"):
        build_view([])
    with pytest.raises(UserError, match="Is the log complete"):
        build_view(finished_run().events[1:])


# --- the headline ---------------------------------------------------------------------------------------------------


def gap(value: float, low: float, high: float, p: float) -> Difference:
    return Difference(value=value, low=low, high=high, p=p, n=ITEMS)


def test_better_is_said_with_its_figures(finished: RunView) -> None:
    assert headline(finished) == (
        "The tuned model is better than the baseline: MCC 0.69 vs 0.59, difference +0.10 [+0.05, +0.16], p < 0.001."
    )
    assert finished.verdict.tone == "better"
    assert finished.verdict.remarks == ()


@pytest.mark.parametrize(
    ("found", "tone"),
    [
        (gap(0.006, -0.02, 0.03, 0.66), "none"),
        (gap(0.03, 0.001, 0.06, 0.08), "none"),  # interval and test disagree
        (gap(0.03, -0.001, 0.06, 0.04), "none"),
        (gap(-0.05, -0.08, -0.02, 0.002), "worse"),
        (gap(0.03, 0.01, 0.05, 0.004), "better"),
        (gap(math.nan, math.nan, math.nan, 1.0), "none"),
    ],
)
def test_the_tone_needs_interval_and_test(found: Difference, tone: str) -> None:
    view = view_of(finished_run(gap=found))
    assert view.verdict.tone == tone
    assert ("No real difference" in headline(view)) == (tone == "none")


def test_a_gain_smaller_than_asked_for_is_named() -> None:
    view = view_of(finished_run(a_task(min_effect=0.2)))
    assert any("smaller than the 0.2" in remark for remark in view.verdict.remarks)


def test_a_gain_that_is_not_ruled_out_is_named() -> None:
    view = view_of(finished_run(gap=gap(0.006, -0.02, 0.03, 0.66)))
    assert any("not ruled out" in remark for remark in view.verdict.remarks)


def test_a_guard_that_fails_is_named_first_thing() -> None:
    view = view_of(finished_run(a_task(guards=(Guard(metric="out_of_scope_recall", min=0.9),))))
    assert [guard.holds for guard in view.guards] == [False]
    assert any("out-of-scope recall (at least 0.9) does not hold" in remark for remark in view.verdict.remarks)
    assert "failing" in html_report(view)


def test_final_weights_that_are_not_on_record_are_named() -> None:
    writer = run_under_way()
    writer.finish("e0028", "e0001")
    writer.seal(a_read("e0028", 0.69), model=None)
    view = view_of(writer)
    assert any("not on record" in remark for remark in view.verdict.remarks)
    assert '<li class="bad"><b>lineage</b>' in html_report(view)


def test_a_champion_that_is_the_baseline_is_no_win() -> None:
    writer = run_under_way()
    writer.finish("e0001", "e0001")
    scores = (a_score("champion", "e0001", 0.589), a_score("baseline", "e0001", 0.589))
    writer.seal(SealedRead(metric="mcc", scores=scores, difference=gap(0.0, 0.0, 0.0, 1.0), mcnemar_p=1.0, n=ITEMS))
    view = view_of(writer)
    assert view.verdict.tone == "none"
    assert "Nothing beat the baseline" in headline(view)


# --- the view -------------------------------------------------------------------------------------------------------


def test_champions_follow_each_other_with_their_clock(finished: RunView) -> None:
    names = [reign.experiment for reign in finished.reigns]
    assert names == ["e0000", "e0001", "e0003", "e0004", "e0007", "e0012", "e0017", "e0018", "e0028"]
    clocks = [reign.clock for reign in finished.reigns]
    assert clocks == sorted(clocks)
    scores = [reign.estimate.value for reign in finished.reigns]
    assert scores == sorted(scores)
    assert finished.reigns[2].closed == 4


def test_the_certified_champion_counts_not_the_best_search_score() -> None:
    writer = run_under_way()
    writer.finish("e0018", "e0001")
    writer.seal(a_read("e0018", 0.70))
    view = view_of(writer)
    assert view.champion is not None
    assert view.champion.id == "e0018"
    assert view.reigns[-1].experiment == "e0028"
    assert view.optimism_gap == pytest.approx(0.712 - 0.70)


def test_what_was_tried_counts_every_outcome(finished: RunView) -> None:
    by_kind = {one.kind: one for one in finished.tried}
    assert not any(kind.startswith("reference") for kind in by_kind)
    encoder = by_kind["tune_encoder"]
    assert (encoder.kept, encoder.discarded, encoder.tie, encoder.raced) == (1, 1, 1, 1)
    assert encoder.counts == "1 kept, 1 tie, 1 discarded, 1 stopped early"
    assert len(encoder.effects) == 3
    assert by_kind["lr"].outcome == "failed"
    assert by_kind["balance"].outcome == "stopped early"
    assert sum(len(one.nodes) for one in finished.tried) == 27


def test_one_effect_keeps_its_interval_and_several_do_not_shrink_item_noise() -> None:
    one = gap(0.02, 0.0, 0.04, 0.05)
    assert mean_effect((one,)) == Estimate(value=0.02, low=0.0, high=0.04, n=1)
    many = mean_effect((one,) * 50)
    assert many is not None
    assert many.low == pytest.approx(0.0, abs=1e-6)
    spread = mean_effect((one, gap(0.08, 0.06, 0.10, 0.001)))
    assert spread is not None
    assert spread.high - spread.low > 0.04
    assert mean_effect(()) is None


def test_undecided_may_still_be_what_was_asked_for(finished: RunView) -> None:
    assert finished.undecided
    for node in finished.undecided:
        assert node.analysis is not None
        found = node.analysis.difference
        assert found is not None
        assert found.low <= 0 < 0.02 <= found.high


def test_bad_cases_have_the_texts_that_are_at_hand(finished: RunView) -> None:
    first, _, third, _ = finished.bad_cases
    assert first.texts == (TEXTS["r2"], TEXTS["r3"], TEXTS["r4"])  # r3 is asked in a variant, r3~typo
    assert third.texts == (TEXTS["r1"],)  # the other id has no text


def test_lessons_come_largest_first(finished: RunView) -> None:
    sizes = [abs(lesson.effect.value) for lesson in finished.lessons]
    assert len(sizes) == 7
    assert sizes == sorted(sizes, reverse=True)


def test_a_resumed_run_shows_its_new_budget() -> None:
    writer = run_under_way()
    writer.add(RunResumed(budget=Budget(wall_s=7200.0)))
    view = view_of(writer)
    assert view.resumed == 1
    assert view.granted.wall_s == 7200.0
    assert "2h" in html_report(view)


# --- the page -------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Reads a page: elements, ids, links, text, and whether tags close in order."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(source)
        self.close()
        assert self._open == [], f"left open: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        opened = self._open.pop()
        assert opened == tag, f"</{tag}> closes <{opened}>"

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.attributes if key == name]


@pytest.mark.parametrize("name", ["finished", "open_run", "large"])
def test_the_page_is_whole_and_needs_nothing_from_outside(name: str, request: pytest.FixtureRequest) -> None:
    view: RunView = request.getfixturevalue(name)
    source = html_report(view)
    page = Page(source)
    assert not {"script", "link", "img", "iframe", "object", "base"} & set(page.tags)
    assert set(page.values("xmlns")) == {"http://www.w3.org/2000/svg"}
    assert "http" not in source.replace("http://www.w3.org/2000/svg", "")
    assert "@import" not in source
    assert "url(" not in source
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    links = page.values("href")
    assert links
    assert all(link.startswith("#") and link[1:] in ids for link in links)
    assert {node.id for node in view.tree.all()} <= set(ids)


def test_the_page_says_what_it_must(finished: RunView) -> None:
    text = " ".join(" ".join(Page(html_report(finished)).texts).split())
    for words in (
        "The tuned model is better than the baseline",
        "0.694",
        "Untouched base model",
        "Constant answer",
        "exact McNemar test",
        "postgrad replay maison-001",
        "postgrad export maison-001 DIR",
        "optimism gap",
        "2 rows of train had the text of a held-out row",
        TEXTS["r2"],
        "refund_status",
        "out of scope",
        "sentence-transformers 6.2.0",
        "1 kept, 1 tie, 1 discarded, 1 stopped early",
        "foreign texts as negatives",
        "of 15m granted",
    ):
        assert words in text, words


def test_markdown_says_the_same_as_the_page(finished: RunView) -> None:
    text = markdown_report(finished)
    assert text.startswith("# The tuned model is better than the baseline: MCC 0.69 vs 0.59")
    for words in (
        "0.694 [0.649, 0.739]",
        "Untouched base model",
        "exact McNemar test: p = 0.001",
        "`postgrad replay maison-001`",
        "2 rows of train had the text of a held-out row",
        TEXTS["r2"],
        "refund_status",
        "1 kept, 1 tie, 1 discarded, 1 stopped early",
        "sentence-transformers 6.2.0",
    ):
        assert words in text, words
    for node in finished.tree.all():
        assert f"| {node.id} |" in text
    rendered = MarkdownIt("commonmark").enable("table").render(text)
    assert rendered.count("<table>") == 9
    assert rendered.count("<h2>") == 13


def test_numbers_are_never_minus_zero_and_nan_is_a_dash() -> None:
    assert wording.number(-0.0001) == "0.000"
    assert wording.signed(-0.0001) == "0.000"
    assert wording.signed(0.0123) == "+0.012"
    assert wording.number(math.nan) == "-"
    assert wording.p_value(0.0004) == "p < 0.001"
    assert wording.p_value(0.034) == "p = 0.034"
    assert wording.p_value(0.5) == "p = 0.50"
    assert minus("-0.5 [-1.0, 2.0] e-1 a-2") == "−0.5 [−1.0,\u00a02.0] e-1 a-2"


# --- texts from data stay texts -------------------------------------------------------------------------------------


def hostile_run() -> RunWriter:
    """Every free text of a run is an attack."""
    writer = RunWriter(run=f"run-{EVIL}")
    task = a_task(name=EVIL, objective=EVIL, base_models=(EVIL,), guards=(Guard(metric=EVIL, min=0.1),))
    card = a_card().model_copy(update={"labels": {EVIL: 3}, "warnings": (EVIL,), "rows": {"train": 3, EVIL: 4}})
    writer.start(task, card)
    for plan in references():
        writer.experiment(plan)
    writer.experiment(Plan(EVIL, EVIL, "e0001", score=0.7, base_model=EVIL))
    writer.experiment(Plan(EVIL, EVIL, "e0003", ends="failed", kind_of_failure=EVIL))
    writer.experiment(Plan(EVIL, EVIL, "e0003", score=0.2, ends="raced"))
    writer.experiment(Plan(EVIL, EVIL, "e0003", score=0.65))
    writer.finish("e0003", "e0001")
    writer.seal(a_read("e0003", 0.69))
    return writer


def test_no_text_becomes_markup_in_the_page() -> None:
    view = build_view(hostile_run().events, {name: EVIL for name in TEXTS}, plan=a_plan())
    source = html_report(view)
    page = Page(source)
    assert not {"script", "img"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert not [value for value in page.values("href") if not value.startswith("#")]
    assert "<script>alert(1)</script>" in " ".join(page.texts), "the text itself is shown"
    assert "{{7*7}}" in " ".join(page.texts)


def test_no_text_becomes_markup_in_markdown_or_in_the_card() -> None:
    view = build_view(hostile_run().events, {name: EVIL for name in TEXTS}, plan=a_plan())
    card = model_card(view, "load()")
    for text in (markdown_report(view), card.split("\n---\n", 1)[1]):
        tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)
        inner = [child for token in tokens for child in (token, *(token.children or []))]
        bad = [token for token in inner if token.type in ("html_block", "html_inline", "link_open", "image")]
        assert not bad
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["model-index"][0]["name"] == EVIL


@settings(max_examples=300, deadline=None)
@given(
    st.text(st.characters(exclude_categories=("Cs", "Cc")) | st.sampled_from("`*_[]()<>&|~!#-+.1)\\ :/@"), max_size=30)
)
def test_escaped_text_reads_as_itself(text: str) -> None:
    """Whatever it is, as the whole content of a list item it renders as that text."""
    engine = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    rendered = engine.render(f"- {escape(text)}\n")
    inside = rendered.removeprefix("<ul>\n<li>").removesuffix("</li>\n</ul>\n")
    assert "<" not in inside
    seen = html_entities.unescape(inside).replace("\u200b", "")
    assert seen.split() == text.replace("\u200b", "").split()


@given(st.text(st.sampled_from("`a |\n"), max_size=20))
def test_code_and_blocks_cannot_be_left(text: str) -> None:
    engine = MarkdownIt("commonmark")
    fenced = engine.parse(block(text))
    assert [token.type for token in fenced] == ["fence"]
    if text.strip():
        tokens = engine.parseInline(code(text))[0].children or []
        assert [token.type for token in tokens] == ["code_inline"]


def test_svg_attributes_and_text_are_escaped() -> None:
    made = tag("text", '<b>"', class_='a" onload="x', x=1.0)
    assert made == '<text class="a&#34; onload=&#34;x" x="1">&lt;b&gt;&#34;</text>'


# --- pictures -------------------------------------------------------------------------------------------------------


@st.composite
def parents(draw: st.DrawFn) -> list[int | None]:
    """A random tree: for each node the index of an earlier one, or None."""
    size = draw(st.integers(1, 40))
    return [draw(st.none() | st.integers(0, i - 1)) if i else None for i in range(size)]


@settings(max_examples=100, deadline=None)
@given(parents())
def test_lanes_never_hide_an_experiment(drawn: list[int | None]) -> None:
    """No lane holds a node between another node of that lane and its last child."""
    writer = just_started()
    for i, parent in enumerate(drawn):
        name = None if parent is None else f"e{parent:04d}"
        writer.experiment(Plan("kind", f"change {i}", name, score=0.5))
    tree = Tree.from_events(writer.events)
    of = lanes(tree)
    last = {node.id: max([node.index, *(child.index for child in tree.children(node.id))]) for node in tree.all()}
    for node in tree.all():
        for other in tree.all():
            if other.index > node.index and of[other.id] == of[node.id]:
                assert other.index >= last[node.id]
    assert min(of.values()) == 0


def test_pictures_show_every_experiment(finished: RunView, large: RunView) -> None:
    for view in (finished, large):
        picture = Page(search_tree(view))
        assert {f"#{node.id}" for node in view.tree.all()} == set(picture.values("href"))
        curve = Page(champion_curve(view))
        assert curve.tags.count("title") == len(view.moments)
        assert sum(key.count for key in legend(view)) == len(view.tree)


def test_pictures_stay_inside_their_frame(finished: RunView, large: RunView) -> None:
    for view in (finished, large, view_of(just_started())):
        for source in (search_tree(view), champion_curve(view)):
            page = Page(source)
            width, height = (float(value) for value in page.values("viewbox")[0].split()[2:])
            assert all(-1 <= float(value) <= width for name in ("cx", "x1", "x2", "x") for value in page.values(name))
            assert all(-1 <= float(value) <= height for name in ("cy", "y1", "y2", "y") for value in page.values(name))


def test_a_metric_that_is_not_defined_draws_and_reads() -> None:
    writer = just_started()
    for plan in references():
        writer.experiment(Plan(**{**plan.__dict__, "score": math.nan}))
    writer.finish("e0001", "e0001")
    writer.seal(a_read("e0001", math.nan, gap(math.nan, math.nan, math.nan, 1.0)))
    view = view_of(writer)
    source = html_report(view)
    assert "nan" not in re.sub(r"[a-z]nan|nan[a-z]", "", source.split("</style>")[1].lower())
    assert summary(view)["optimism_gap"] is None
    assert Page(source)


@given(st.floats(-1, 1), st.floats(1e-6, 3), st.integers(3, 9))
def test_ticks_are_few_and_inside(low: float, width: float, count: int) -> None:
    found = ticks(low, low + width, count)
    assert len(found) <= count + 1
    assert all(low - 1e-6 <= value <= low + width + 1e-6 for value in found)


@given(st.floats(1, 1e7))
def test_time_ticks_are_few_and_inside(seconds: float) -> None:
    found = time_ticks(seconds)
    assert 1 <= len(found) <= 9
    assert found[0] == 0
    assert found[-1] <= seconds


def test_rows_that_workers_took_out_are_counted(finished: RunView) -> None:
    assert finished.contamination.barred == 0
    node = next(node for node in finished.tree.all() if node.results and node.results[0].units)
    step = StepReport(op="decontaminate", rows_in=9, rows_out=7, dropped=2)
    unit = node.results[0].units[0].model_copy(update={"steps": (step,)})
    result = node.results[0].model_copy(update={"units": (unit,)})
    changed = replace(node, results=(result, *node.results[1:]))
    tree = replace(finished.tree, experiments={**finished.tree.experiments, node.id: changed})
    view = replace(finished, tree=tree)
    assert view.contamination.barred == 2
    assert "2 rows made by data steps" in markdown_report(view)
