"""What people rejected, banned or pinned is kept from whoever proposes; ideas and edits of their own are tried."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from people_run import Run, new_run
from postgrad.people.mailbox import new_order, post
from postgrad.records import Ban, Pin, SearchSpec
from postgrad.report import read_view, write_report
from postgrad.search import legal
from postgrad.store.sqlite import SqliteStore


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


@pytest.fixture(scope="module")
def stopped_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with a ban whose reason looks like markup, and a stop."""
    run = new_run(tmp_path_factory.mktemp("reported"), experiments=5).drive()
    run.waiting()
    run.say("ban", "ensemble", "--reason", "<script>alert(1)</script>", "--as", "Ada")
    run.say("stop", "--reason", "enough")
    assert run.ended() == 0
    return run
