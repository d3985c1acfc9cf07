"""Metrics that read molecules: the contract and hand-computed cases of each. They need RDKit (`postgrad[chem]`)."""

from __future__ import annotations

import json

import pytest

from postgrad.metrics import TEXT_METRICS
from postgrad.metrics.base import TextMetric
from postgrad.testing.text_metric import TextCase, TextMetricContract

pytest.importorskip("rdkit", reason="needs RDKit: pip install 'postgrad[chem]'")


def get(name: str) -> TextMetric:
    return TEXT_METRICS.get(name)


def steps(*given: tuple[str, str, float]) -> str:
    return json.dumps([{"subtype": s, "intermediate_smiles": m, "step_weight": w} for s, m, w in given])


def asked(subtask: str, **columns: str) -> str:
    return json.dumps({"subtask": subtask, "instruction": "", **columns})


class TestMoleculeValid(TextMetricContract):
    metric = get("molecule_valid")
    references = ("CCO", "c1ccccc1")
    cases = (
        TextCase((("", "CCO"), ("", "Molecule: `c1ccccc1`"), ("", '{"molecule": "C"}'), ("", "CC(")), value=3 / 4),
        # Five bonds at a carbon, nothing, and a molecule with words behind it.
        TextCase((("", "C(C)(C)(C)(C)C"), ("", ""), ("", "CCO is it")), value=0.0),
    )


RIGHT = {
    asked("AtomNum", carbon="2", oxygen="1", nitrogen="0"): "CCO",
    asked("BondNum", single="1", double="1", triple="0", rotatable="0", aromatic="0"): "CC=O",
    asked("FunctionalGroup", **{"benzene rings": "1", "hydroxyl": "1"}): "Oc1ccccc1",
    asked("AddComponent", molecule="CC", added_group="hydroxyl"): "CCO",
    asked("DelComponent", molecule="CCCl", removed_group="halo"): "CC",
    asked("SubComponent", molecule="CCCl", added_group="hydroxyl", removed_group="halo"): "CCO",
    json.dumps({"subtask": "LogP", "molecule": "CCCC", "instruction": "Make it lower."}): "CCCO",
    json.dumps({"subtask": "MR", "molecule": "CC", "instruction": "Make it higher."}): "CCCC",
}


class TestTomgSuccess(TextMetricContract):
    metric = get("tomg_success")
    references = tuple(RIGHT)
    unreadable = ("CCO", "[]", "{}", asked("AddComponent", molecule="CC("), asked("Other"), asked("AtomNum"))

    def perfect(self, reference: str) -> str:
        return RIGHT.get(reference, "C")

    cases = (
        TextCase(tuple((reference, "CC(") for reference in RIGHT), value=0.0),
        TextCase(
            (
                (asked("AtomNum", carbon="2", oxygen="1"), "CC"),
                (asked("AddComponent", molecule="CC", added_group="hydroxyl"), "OCCO"),
                (asked("AddComponent", molecule="CC", added_group="benzene ring"), "CCc1ccccc1"),
                (json.dumps({"subtask": "LogP", "molecule": "CCCC", "instruction": "decrease it"}), "CCCCC"),
            ),
            value=1 / 4,
        ),
    )


class TestMechanismScore(TextMetricContract):
    metric = get("mechanism_score")
    references = (steps(("a", "CCO", 0.25), ("b", "CC=O", 0.75)), steps(("a", "C", 1)), steps(("b", "c1ccccc1", 0.5)))
    unreadable = ("", "[]", steps(("a", "C", 0)))
    two = steps(("a", "CCO", 0.25), ("b", "CC=O", 0.75))
    cases = (
        # The same molecule written otherwise; a kind that is wrong; a molecule that is wrong; one that is none.
        TextCase(((two, steps(("a", "OCC", 0), ("b", "C(C)=O", 0))),), value=1.0),
        TextCase(((two, steps(("a", "CCO", 0), ("a", "CC=O", 0))),), value=0.25),
        TextCase(((two, steps(("a", "c1ccccc1", 0), ("b", "CC=O", 0))),), value=0.75),
        TextCase(((two, steps(("a", "CC(", 0), ("b", "CC(", 0))), (two, "none")), value=0.0),
    )
