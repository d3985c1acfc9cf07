"""What people rejected, banned or pinned is kept from whoever proposes; ideas and edits of their own are tried."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from people_run import Run, new_run
from postgrad.budget import Ledger
from postgrad.events import Decided, Event, Proposed
from postgrad.people.brought import brought
from postgrad.people.decide import Situation, decided, declined
from postgrad.people.gate import Gate, asking
from postgrad.people.mailbox import new_order, post
from postgrad.people.standing import Standing
from postgrad.records import (
    Asked,
    Ban,
    Choice,
    Inject,
    ModelSpec,
    Move,
    Pin,
    Proposal,
    Recipe,
    Reject,
    ResearcherSpec,
    SearchSpec,
    Sketch,
    Stage,
    Step,
    Wish,
)
from postgrad.report import read_view, write_report
from postgrad.research import edit
from postgrad.research.asking import Asking
from postgrad.research.base import Context
from postgrad.research.questions import Question
from postgrad.search import legal
from postgrad.store.sqlite import SqliteStore
from postgrad.testing.researcher import PLAIN
from postgrad.testing.simulation import nominal_s
from postgrad.testing.trees import Node, tree_of


def changes(run: Run, after: int = 0) -> list[frozenset[str]]:
    """The kinds of change of each proposal that a policy or the playbook made, from an experiment on."""
    found = [body for body in run.proposed() if int(body.experiment[1:]) > after and body.order is None]
    own = [body for body in found if body.proposal.proposer not in ("reference", "referee")]
    return [frozenset(body.choice.kinds or [body.proposal.kind]) | {body.proposal.kind} for body in own]


def test_a_rejected_kind_is_not_proposed_again_unless_only_this_was_meant(tmp_path: Path) -> None:
    run = new_run(tmp_path, experiments=7).drive()
    (first,) = run.waiting()
    rejected = run.tree[first].proposed.proposal.kind
    run.say("reject", first, "--reason", "not this")
    (second,) = run.waiting()
    spared = run.tree[second].proposed.proposal.kind
    run.say("reject", second, "--reason", "not now", "--only-this")
    for _ in range(2):
        run.say("approve", run.waiting()[0])
    run.waiting()
    run.say("stop")
    assert run.ended() == 0
    assert rejected != spared
    assert all(rejected not in kinds for kinds in changes(run, int(first[1:])))
    inbox = run.say()
    assert inbox["rejected_kinds"] == [[rejected]]


@pytest.mark.parametrize("policy", ["posterior", "greedy", "sequential"])
def test_banned_kinds_are_proposed_by_no_policy(tmp_path: Path, policy: str) -> None:
    run = new_run(tmp_path, experiments=11, when="never", search=SearchSpec(policy=policy, pare=0.0))
    banned = ("tune", "draft.everything", "train", "ensemble", "replicate")
    for what in banned:
        post(run.folder, new_order(Ban(what=what), "Ada"))
    assert run.drive(slots=2).ended() == 0
    assert all(body.took_effect for body in run.decisions()) and len(run.tree) == 11
    for kinds in changes(run):
        assert not any(kind in banned or kind.partition(".")[0] in banned for kind in kinds), kinds


@pytest.mark.parametrize("policy", ["posterior", "uct", "tpe"])
def test_a_pinned_branch_is_all_that_is_extended_and_a_banned_one_is_not(tmp_path: Path, policy: str) -> None:
    run = new_run(tmp_path, experiments=9, when="never", search=SearchSpec(policy=policy, pare=0.0))
    post(run.folder, new_order(Ban(what="e0001"), "Ada"))
    run.drive("analysed:after").ended()
    for order in (new_order(Pin(experiment="e0001"), "Ada"), new_order(Ban(what="e0001"), "Ada")):
        post(run.folder, order)
    assert run.drive().ended() == 0
    assert [body.took_effect for body in run.decisions()] == [False, False, False]
    run = new_run(tmp_path / "pinned", experiments=9, when="never", search=SearchSpec(policy=policy, pare=0.0))
    run.drive("analysed:after").ended()
    run.drive("analysed:after").ended()
    post(run.folder, new_order(Pin(experiment="e0001"), "Ada"))
    assert run.drive().ended() == 0
    tree = run.tree
    own = [node for node in tree.all() if node.index > 1 and not legal.is_reference(node)]
    assert own and all("e0001" in {each.id for each in tree.path(node.id)} for node in own)


def test_unpinning_and_unbanning_open_what_was_closed(tmp_path: Path) -> None:
    run = new_run(tmp_path, experiments=5).drive()
    (first,) = run.waiting()
    for words in (("pin", "e0001"), ("ban", "draft"), ("unpin", "e0001"), ("unban", "draft")):
        assert run.say(*words)["took_effect"]
    inbox = run.say()
    assert inbox["pinned"] == [] and inbox["banned"] == []
    assert "is not pinned" in run.say("unpin", "e0001", code=2)["error"]["message"]
    assert "neither an experiment" in run.say("ban", "trian.longer", code=2)["error"]["message"]
    run.say("stop")
    assert run.ended() == 0 and first in run.tree.experiments


def test_edits_and_ideas_are_tried_as_they_were_given(tmp_path: Path) -> None:
    run = new_run(tmp_path, experiments=7).drive()
    (first,) = run.waiting()
    assert "no setting" in run.say("edit", first, "--set", "stagee.C=2", code=2)["error"]["message"]
    assert "cannot be tried" in run.say("edit", first, "--set", "backend=nonsense", code=2)["error"]["message"]
    said = run.say("edit", first, "--set", "data.dedup=true", "--approve")
    assert said["took_effect"]
    run.until(lambda r: r.tree[first].score is not None)
    recipe = run.tree[first].proposed.proposal.recipe
    assert [step.op for step in recipe.data] == ["dedup"] and run.tree.has_tried(recipe)
    idea = tmp_path / "idea.json"
    idea.write_text(json.dumps({"stage": {"backend": "classic", "params": {"C": 3.0}}}))
    run.waiting()
    assert run.say("inject", str(idea), "--on", "e0001")["took_effect"]
    mine = run.until(lambda r: next((n for n in r.tree.all() if n.proposed.order and n.score is not None), None), 20)
    assert mine.parent == "e0001" and mine.proposed.proposal.proposer == "person" and not mine.proposed.asks
    assert "has this recipe already" in run.say("inject", str(idea), code=2)["error"]["message"]
    run.say("budget", "40 experiments")
    run.say("stop")
    assert run.ended() == 0


def test_reports_say_who_decided_what_and_why_and_texts_stay_texts(stopped_run: Run) -> None:
    with SqliteStore.open(stopped_run.folder, write=False) as store:
        view = read_view(store)
        write_report(view, stopped_run.folder)
    page = (stopped_run.folder / "report.html").read_text()
    text = (stopped_run.folder / "report.md").read_text()
    assert "What people decided" in page and "What people decided" in text
    assert "&lt;script&gt;" in page and "<script>alert" not in page + text
    (first, second) = view.decisions
    assert (first.by, first.verb, first.took_effect) == ("Ada", "ban", True)
    assert second.verb == "stop" and "enough" in page
    assert "Changes of the kind ensemble are not proposed any more." in page


def test_the_report_leads_from_an_order_to_the_experiment_and_how_it_came_out(tmp_path: Path) -> None:
    run = new_run(tmp_path, experiments=5).drive()
    first = run.waiting()[0]
    run.say("approve", first)
    second = run.waiting()[0]
    run.say("reject", second, "--reason", "no")
    run.waiting()
    run.say("stop")
    assert run.ended() == 0
    with SqliteStore.open(run.folder, write=False) as store:
        view = read_view(store)
        page = write_report(view, run.folder).read_text()
    decisions = page[page.index("What people decided") : page.index("What was tried, and what it did")]
    assert [one.experiment for one in view.decisions] == [first, second, None]
    assert f'href="#{first}"' in decisions and f'href="#{second}"' in decisions
    score = view.tree[first].score
    assert score is not None and f"{score:.3f} on the search split" in decisions and "rejected" in decisions


@pytest.fixture(scope="module")
def stopped_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with a ban whose reason looks like markup, and a stop."""
    run = new_run(tmp_path_factory.mktemp("reported"), experiments=5).drive()
    run.waiting()
    run.say("ban", "ensemble", "--reason", "<script>alert(1)</script>", "--as", "Ada")
    run.say("stop", "--reason", "enough")
    assert run.ended() == 0
    return run


# --- several changes, programs, and what is asked twice ---------------------------------------------------------------

TREE = tree_of([Node("e0000"), Node("e0001", "e0000", 0.6, kind="head.cosine"), Node("e0002", "e0001", 0.55)])
ON = Choice(parent="e0001", move=Move.IMPROVE, reason="it leads")


def standing(*wishes: Wish) -> Standing:
    """What holds after Ada's orders, all of which took effect."""
    found = Standing()
    for wish in wishes:
        found.fold(Decided(order=new_order(wish, "Ada", "it harms"), took_effect=True, said=""))
    return found


def test_a_copy_does_not_see_what_comes_later() -> None:
    """But for what experiments are, which is shared: a copy for each proposal costs the same however many there are."""
    first = standing(Ban(what="typos"))
    then = first.copy()
    first.fold(Decided(order=new_order(Pin(experiment="e0001"), "Ada", ""), took_effect=True, said=""))
    assert not then.pins and first.pins and then.bans == first.bans and then.known < first.known
    assert then._kinds is first._kinds


def rejecting(*kinds: str) -> Standing:
    """What holds after Ada rejected a proposal of a model that made changes of these kinds together."""
    found = standing()
    made = composed(*kinds)
    assert made.carried_out is not None
    found.fold(
        Proposed(
            experiment="e0009", choice=made.carried_out, proposal=made, incumbent=None, nominal_s=1.0, asks="a person"
        )
    )
    found.fold(Decided(order=new_order(Reject(experiment="e0009"), "Ada", "no"), took_effect=True, said=""))
    return found


def composed(*kinds: str, kind: str = "several.changes", asked: Asked | None = None, c: float = 7.0) -> Proposal:
    """A proposal as a language model makes it: what it changes is in the choice that it carried out."""
    return Proposal(
        recipe=Recipe(stage=Stage(backend="classic", params={"C": c})),
        kind=kind,
        hypothesis="It may help.",
        change="several things",
        expected_effect=0.01,
        refuted_by="no gain",
        proposer="model",
        seed=0,
        carried_out=Choice(parent="e0001", move=Move.IMPROVE, kinds=kinds),
        asked=asked,
    )


def through(rules: Standing, *offered: Proposal) -> Proposal | None:
    """The first of these proposals that the rules let pass, offered one after the other."""
    left = iter(offered)

    def ask(choice: Choice, context: Context) -> Proposal:
        return next(left)

    found = Gate(rules).proposal(ask, ask, ON, Context(TREE, Random(0), len(TREE), None, nominal_s))
    return found[0] if found is not None else None


@pytest.mark.parametrize(
    "rules",
    [standing(Ban(what="data.dedup")), standing(Ban(what="data")), rejecting("data.dedup", "set.lr")],
    ids=["kind", "group", "rejected together"],
)
def test_rules_bind_proposals_that_make_several_changes(rules: Standing) -> None:
    barred, other = composed("data.dedup", "set.lr"), composed("head.cosine", "set.lr", c=8.0)
    assert through(rules, barred, other) == other
    assert through(standing(Ban(what="train")), barred) == barred


def test_what_was_rejected_together_may_be_made_alone() -> None:
    alone = composed("data.dedup", kind="data.dedup")
    assert through(rejecting("data.dedup", "set.lr"), alone) == alone
    draft = composed("draft.classic_svm", "set.lr", kind="draft.composed")
    assert through(standing(Ban(what="draft.classic_svm")), draft, alone) == alone


def order_on(wish: Wish, rules: Standing) -> Decided:
    """What would be decided on a program's or a person's order under these rules."""
    ledger = Ledger.from_events(PLAIN.budget, ())
    return decided(new_order(wish, "robot"), Situation(TREE, rules, PLAIN, ledger, False))


DEDUP = Recipe(stage=Stage(backend="classic", params={"C": 2.0}), data=(Step(op="dedup"),))
BOTH = Recipe(stage=Stage(backend="classic", params={"C": 2.0, "head": "svm"}), data=(Step(op="dedup"),))


@pytest.mark.parametrize(
    ("rule", "idea", "said"),
    [
        (Ban(what="data.dedup"), {"kind": "data.dedup", "experiment": "e0001"}, "data.dedup is banned"),
        (Ban(what="data"), {"recipe": DEDUP, "experiment": "e0001"}, "data is banned"),
        (Ban(what="data.dedup"), {"recipe": BOTH, "experiment": "e0001"}, "data.dedup is banned"),
        (Ban(what="data.dedup"), {"recipe": BOTH}, "data.dedup is banned"),
        (Ban(what="e0000"), {"kind": "data.dedup", "experiment": "e0001"}, "e0000, which e0001 is built on, is banned"),
        (Ban(what="draft"), {"kind": "draft.classic_svm"}, "draft is banned"),
        (Ban(what="draft"), {"recipe": BOTH}, "draft is banned"),
        (Pin(experiment="e0002"), {"kind": "data.dedup", "experiment": "e0001"}, "only e0002"),
        (Pin(experiment="e0002"), {"recipe": BOTH}, "only e0002"),
    ],
)
def test_a_programs_idea_is_refused_where_people_closed_the_way_and_a_persons_is_not(
    rule: Wish, idea: dict[str, Any], said: str
) -> None:
    rules = standing(rule)
    refused = order_on(Inject(**idea, asks=True), rules)
    assert not refused.took_effect and refused.proposal is None
    assert said in refused.said and "Ada decided that (it harms)" in refused.said
    assert "postgrad inbox RUN un" in refused.said
    assert order_on(Inject(**idea), rules).took_effect
    assert order_on(Inject(**idea, asks=True), standing()).took_effect


def test_an_idea_of_a_kind_that_was_rejected_is_refused_to_a_program() -> None:
    wish = Inject(kind="data.dedup", experiment="e0001", asks=True)
    assert "data.dedup was rejected: Ada" in order_on(wish, rejecting("data.dedup")).said
    assert order_on(wish, rejecting("data.dedup", "set.lr")).took_effect


@pytest.mark.parametrize("asks", [True, False])
def test_an_idea_that_is_to_be_proposed_is_not_taken_twice(asks: bool) -> None:
    first = order_on(Inject(recipe=DEDUP, experiment="e0001", asks=asks), standing())
    rules = standing()
    rules.fold(first)
    for again in (Inject(recipe=DEDUP, asks=asks), Inject(recipe=DEDUP, experiment="e0001", asks=asks)):
        refused = order_on(again, rules)
        assert not refused.took_effect and "robot put this recipe in already" in refused.said
    assert order_on(Inject(recipe=BOTH, asks=asks), rules).took_effect


# --- kept sketches ----------------------------------------------------------------------------------------------------


class Twice:
    """A proposer that has two ideas and says them once."""

    name = "model"

    def __init__(self, *sketches: Sketch) -> None:
        self.sketches = sketches

    def can_pay(self, usd: float | None) -> bool:
        return True

    def answer(self, question: Question) -> Asked:
        return asked_of(*self.sketches)


def asked_of(*sketches: Sketch) -> Asked:
    return Asked(
        proposer="model",
        provider="",
        model="",
        key="",
        tokens_in=0,
        tokens_out=0,
        usd=None,
        seconds=0.0,
        sketches=sketches,
    )


def sketch(c: float, *kinds: str) -> Sketch:
    return Sketch(
        parent="e0001",
        recipe=Recipe(stage=Stage(backend="classic", params={"C": c})),
        kind=kinds[0] if len(kinds) == 1 else "several.changes",
        kinds=kinds,
        change="something",
        hypothesis="It may help.",
        expected_effect=0.01,
        refuted_by="no gain",
    )


@pytest.mark.parametrize(
    "rules", [standing(Ban(what="data.dedup")), rejecting("data.dedup", "set.C")], ids=["banned", "rejected together"]
)
def test_a_kept_sketch_that_is_ruled_out_does_not_stand_in_the_way_of_the_others(rules: Standing) -> None:
    first, second, third = sketch(21.0, "set.C"), sketch(22.0, "data.dedup", "set.C"), sketch(23.0, "set.C")
    made = composed("set.C", kind="set.C", c=21.0, asked=asked_of(first, second, third))
    assert made.carried_out is not None
    body = Proposed(experiment="e0003", choice=made.carried_out, proposal=made, incumbent=None, nominal_s=1.0)
    tree = TREE.with_event(Event(seq=1, at=0.0, clock=0.0, body=body))
    researcher = Asking(
        [Twice()],
        ResearcherSpec(
            kind="language_model", models=(ModelSpec(name="model", provider="scripted", model="s"),), alone=True
        ),
    )
    gate = Gate(rules)
    context = Context(gate.view(tree), Random(0), len(tree), None, nominal_s, barred=gate.barred)
    found = gate.proposal(*asking(researcher, "greedy", PLAIN), ON, context)
    assert found is not None and found[0].proposer == "model" and found[0].recipe == third.recipe
    if gate.barred("data.dedup"):  # Its company does not matter, and the researcher sees to that itself.
        assert researcher.propose(PLAIN, ON, context).recipe == third.recipe
    free = Gate(standing())
    context = Context(tree, Random(0), len(tree), None, nominal_s, barred=free.barred)
    found = free.proposal(*asking(researcher, "greedy", PLAIN), ON, context)
    assert found is not None and found[0].recipe == second.recipe


@pytest.mark.parametrize(("c", "refused"), [(2.0, True), (2.01, True), (2.5, False)])
def test_an_agent_is_told_what_its_idea_repeats_and_a_person_too(c: float, refused: bool) -> None:
    recipe = Recipe(stage=Stage(backend="classic", params={"C": c, "head": "logistic"}))
    tried = Recipe(stage=Stage(backend="classic", params={"C": 2.0, "head": "logistic"}))
    now = Situation(tree_of([Node("e0000", score=0.61, recipe=tried)]), standing(), PLAIN, Ledger(PLAIN.budget), False)
    agents = decided(new_order(Inject(recipe=recipe, asks=True), "an agent"), now)
    persons = decided(new_order(Inject(recipe=recipe), "Ada"), now)
    assert agents.took_effect is not refused
    assert persons.took_effect is (c != 2.0), "what does the very same is trained for nobody"
    if c == 2.01:
        assert "it was tried as e0000 but for C 2 -> 2.01" in agents.said and "it scored 0.6100" in agents.said
        assert "Note: it was tried as e0000 but for C 2 -> 2.01" in persons.said
    queued = decided(
        new_order(Inject(recipe=edit.with_main(recipe, C=2.51), asks=True), "an agent"), _with_idea(now, recipe)
    )
    assert queued.took_effect is (c != 2.5)


def _with_idea(now: Situation, recipe: Recipe) -> Situation:
    """The situation with a person's idea that is not proposed yet."""
    order = new_order(Inject(recipe=recipe), "Ada")
    proposal = composed("idea.recipe", kind="idea.recipe").model_copy(update={"recipe": recipe})
    rules = standing()
    rules.fold(Decided(order=order, took_effect=True, said="", proposal=proposal))
    return replace(now, standing=rules)


# --- ideas that a later rule closes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("asks", [True, False])
@pytest.mark.parametrize("rule", [Ban(what="data.dedup"), Ban(what="e0001"), Pin(experiment="e0002")])
def test_an_idea_that_was_taken_is_declined_by_a_later_rule_and_not_by_an_earlier_one(asks: bool, rule: Wish) -> None:
    taken = order_on(Inject(recipe=DEDUP, experiment="e0001", asks=asks), standing())
    ruled = Decided(order=new_order(rule, "Ada", "it harms"), took_effect=True, said="")
    rules = standing()
    for body in (taken, ruled):
        rules.fold(body)
    now = Situation(TREE, rules, PLAIN, Ledger.from_events(PLAIN.budget, ()), False)
    found = declined(taken, now)
    assert found is not None and not found.took_effect and found.order == taken.order
    assert (
        "Ada decided that after the idea was taken (it harms)" in found.said and "postgrad inbox RUN un" in found.said
    )
    rules.fold(found)
    assert not rules.ideas and taken.order.id in rules.known
    before = standing()
    for body in (ruled, taken):
        before.fold(body)
    assert declined(taken, replace(now, standing=before)) is None


def test_a_run_declines_an_idea_that_is_banned_before_its_turn(tmp_path: Path) -> None:
    run = new_run(tmp_path, experiments=5, when="never")
    idea = Inject(recipe=Recipe(stage=Stage(backend="classic", params={"C": 9.0}), data=(Step(op="dedup"),)))
    for wish in (idea, Ban(what="data.dedup"), idea.model_copy(update={"change": "mine, all the same"})):
        post(run.folder, new_order(wish, "Ada", "it harms"))
    assert run.drive().ended() == 0
    decisions = run.decisions()
    assert [(body.order.wish.verb, body.took_effect) for body in decisions] == [
        ("inject", True),
        ("ban", True),
        ("inject", False),
        ("inject", True),
    ]
    assert decisions[2].order == decisions[0].order
    proposed = [body.order for body in run.proposed() if body.order]
    assert proposed == [decisions[3].order.id], "a person may make an exception to a rule that holds"
    assert any("it is not tried after all" in each["said"] for each in run.say()["decisions"])
    with SqliteStore.open(run.folder, write=False) as store:
        write_report(read_view(store), tmp_path)
    assert "it is not tried after all" in (tmp_path / "report.md").read_text()


# --- whole recipes ----------------------------------------------------------------------------------------------------

FULL = Stage(backend="embedder", params={"tune": "full"})
SVM = Stage(backend="classic", params={"head": "svm"})
TWO = edit.with_member(Recipe(base_model="b", stage=FULL), SVM)
LATER = Stage(backend="causal_lm", params={"tune": "lora", "then": ({"method": "dpo"},)})


@pytest.mark.parametrize(
    ("recipe", "banned"),
    [
        (Recipe(stage=SVM, data=(Step(op="dedup"),)), "data.dedup"),
        (Recipe(base_model="b", stage=FULL), "method.full_finetune"),
        (Recipe(base_model="b", stage=FULL), "backend.embedder"),
        (TWO, "backend.embedder"),
        (TWO, "method.full_finetune"),
        (TWO, "ensemble"),
        (edit.with_soup(Recipe(base_model="b", stage=FULL), {}, {"lr_factor": 2.0}), "soup.rates"),
        (edit.with_soup(Recipe(base_model="b", stage=FULL), {}, {"lr_factor": 2.0}), "method.full_finetune"),
        (Recipe(base_model="b", stage=LATER), "lm.then_dpo"),
    ],
)
def test_a_banned_part_of_a_whole_recipe_is_found(recipe: Recipe, banned: str) -> None:
    assert edit.valid(recipe)
    made = composed("search.tpe", kind="search.tpe").model_copy(update={"recipe": recipe, "carried_out": None})
    gate = Gate(standing(Ban(what=banned)))
    choice = Choice(parent="e0001", move=Move.IMPROVE)
    assert gate._bars(made, choice, TREE)
    assert not Gate(standing(Ban(what="train")))._bars(made, choice, TREE)


def test_what_the_parent_has_already_is_not_brought() -> None:
    before = Recipe(stage=SVM, data=(Step(op="dedup"),))
    assert brought(before, edit.with_main(before, C=9.0)) == frozenset()
    assert brought(None, before) == {"data.dedup", "backend.classic"}
