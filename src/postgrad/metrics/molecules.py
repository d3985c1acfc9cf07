"""Molecules as SMILES, read by RDKit: validity, the success of TOMG-Bench, and the mechanism score of oMeBench.

RDKit is an extra of its own (`postgrad[chem]`). Without it a task that asks for one of these metrics is refused.
"""

from __future__ import annotations

from typing import Any, Callable, Mapping

from postgrad.errors import UserError
from postgrad.metrics.base import Answered
from postgrad.metrics.mechanisms import Step, answered_steps, expected_steps
from postgrad.metrics.reading import first_json, read_json
from postgrad.metrics.texts import MeanMetric

LONGEST = 1000
# Steps whose molecules are less alike than this count nothing (oMeBench, its default).
LIKENESS = 0.6
_QUOTES = "\"'`"

ATOMS = {
    **{"carbon": 6, "oxygen": 8, "nitrogen": 7, "sulfur": 16, "fluorine": 9, "chlorine": 17, "bromine": 35},
    **{"iodine": 53, "phosphorus": 15, "boron": 5, "silicon": 14, "selenium": 34, "tellurium": 52, "arsenic": 33},
    **{"antimony": 51, "bismuth": 83, "polonium": 84},
}
BONDS = ("single", "double", "triple", "aromatic", "rotatable")
# SMARTS of the functional groups as TOMG-Bench counts them.
GROUPS = {
    "benzene_ring": "[cX3]1[cX3][cX3][cX3][cX3][cX3]1",
    "hydroxyl": "[OH]",
    "anhydride": "[CX3](=O)[OX2][CX3](=O)",
    "aldehyde": "[CX3H](=O)",
    "ketone": "[CX3](=O)[CX4]",
    "carboxyl": "[CX3](=O)[OX2H]",
    "ester": "[CX3](=O)[OX2][CX4]",
    "amide": "[NX3][CX3](=O)",
    "amine": "[NX3;H2,H1;!$(NC=O)]",
    "nitro": "[NX3](=O)=O",
    "halo": "[F,Cl,Br,I]",
    "nitrile": "C#N",
    "thiol": "[SH]",
    "sulfide": "[SX2H0]",
    "disulfide": "S=S",
    "sulfoxide": "[SX3](=O)[CX4]",
    "sulfone": "[SX4](=O)(=O)[CX4]",
    "borane": "[BX3]",
}
Reference = Mapping[str, Any]


def smiles_of(answer: str) -> str:
    """The SMILES of an answer: `{"molecule": "..."}`, what stands behind the last "Molecule:", or the whole text."""
    value = first_json(answer, "{")
    if isinstance(value, dict) and isinstance(value.get("molecule"), str):
        return str(value["molecule"]).strip()
    return answer.rpartition("Molecule:")[2].strip().strip(_QUOTES).strip()


class _Chemical(MeanMetric):
    """A metric that needs RDKit."""

    def __init__(self) -> None:
        try:
            from rdkit import Chem, rdBase
        except ModuleNotFoundError as missing:
            raise UserError(
                f"The text metric '{self.name}' needs the library 'rdkit', which is not installed. Install it with: "
                "pip install 'postgrad[chem]'."
            ) from missing
        self._chem: Any = Chem
        self._quiet: Callable[[], Any] = rdBase.BlockLogs

    def molecule(self, smiles: str) -> Any:
        """The molecule, None where RDKit reads none. Without the checks "" and "CCO and a name" would be molecules."""
        if not smiles or len(smiles) > LONGEST or not smiles.isascii() or any(each.isspace() for each in smiles):
            return None
        with self._quiet():
            return self._chem.MolFromSmiles(smiles)


class MoleculeValid(_Chemical):
    """Share of answers that are a molecule, whatever was asked; the reference is not read."""

    name = "molecule_valid"

    def score(self, item: Answered) -> float:
        return float(self.molecule(smiles_of(item.answer)) is not None)


class TomgSuccess(_Chemical):
    """Share of answers that do what was asked (TOMG-Bench, Li et al. 2024, arXiv 2412.14642; its script `evaluate.py`).

    The reference is a JSON object with the `subtask`, the `instruction` and the columns of the official file; items
    with other references are unscored.
    """

    name = "tomg_success"

    def score(self, item: Answered) -> float | None:
        asked = read_json(item.reference)
        if not isinstance(asked, dict):
            return None
        try:
            check = self._check(asked)
        except (KeyError, TypeError, ValueError, AttributeError):
            return None
        answered = self.molecule(smiles_of(item.answer))
        return float(answered is not None and check(answered))

    def _check(self, asked: Reference) -> Callable[[Any], bool]:
        """What tells whether a molecule is what was asked for. Raises where the reference does not say."""
        subtask = asked["subtask"]
        if subtask in ("AtomNum", "BondNum", "FunctionalGroup"):
            return self._numbers(subtask, asked)
        before = self.molecule(asked["molecule"])
        if before is None:
            raise ValueError("the molecule to start from cannot be read")
        if subtask in ("LogP", "MR", "QED"):
            down = any(word in asked["instruction"] for word in ("lower", "decrease"))
            start = self._property(subtask, before)
            return lambda one: (self._property(subtask, one) < start) if down else self._property(subtask, one) > start
        changes = {"AddComponent": ("added",), "DelComponent": ("removed",), "SubComponent": ("added", "removed")}
        wanted = {}
        for change in changes[subtask]:
            group = asked[f"{change}_group"].strip().replace("benzene ring", "benzene_ring")
            wanted[group] = self._group(group, before) + (1 if change == "added" else -1)
        return lambda one: all(self._group(group, one) == count for group, count in wanted.items())

    def _numbers(self, subtask: str, asked: Reference) -> Callable[[Any], bool]:
        names: Mapping[str, str] = {
            "AtomNum": {name: name for name in ATOMS},
            "BondNum": {name: name for name in BONDS},
            "FunctionalGroup": {name.replace("benzene_ring", "benzene rings"): name for name in GROUPS},
        }[subtask]
        count = {"AtomNum": self._atoms, "BondNum": self._bonds, "FunctionalGroup": self._group}[subtask]
        wanted = {names[column]: int(float(asked[column])) for column in names if column in asked}
        if not wanted:
            raise ValueError("no number is asked for")
        return lambda one: all(count(name, one) == number for name, number in wanted.items())

    def _atoms(self, name: str, molecule: Any) -> int:
        return sum(atom.GetAtomicNum() == ATOMS[name] for atom in molecule.GetAtoms())

    def _bonds(self, name: str, molecule: Any) -> int:
        if name == "rotatable":
            from rdkit.Chem import Lipinski

            return int(Lipinski.NumRotatableBonds(molecule))
        return sum(str(bond.GetBondType()) == name.upper() for bond in molecule.GetBonds())

    def _group(self, name: str, molecule: Any) -> int:
        return len(molecule.GetSubstructMatches(self._chem.MolFromSmarts(GROUPS[name])))

    def _property(self, name: str, molecule: Any) -> float:
        from rdkit.Chem import QED, Crippen

        return float({"LogP": Crippen.MolLogP, "MR": Crippen.MolMR, "QED": QED.qed}[name](molecule))


class MechanismScore(_Chemical):
    """Mean partial score of oMeBench: weight of the aligned steps of one subtype, times how alike their molecules are.

    Molecules are compared by Tanimoto similarity of Morgan fingerprints (radius 2, 2048 bits), which counts from 0.6
    on. Steps are aligned in order so that the weight of equal molecules is largest, and then this sum. Unlike in the
    authors' script a mechanism's score is not rounded, and weights are taken to add up to one.
    """

    name = "mechanism_score"

    def __init__(self) -> None:
        super().__init__()
        from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator

        self._prints: Any = GetMorganGenerator(radius=2, fpSize=2048)

    def score(self, item: Answered) -> float | None:
        expected = expected_steps(item.reference)
        if expected is None:
            return None
        wanted, given = ([self._seen(step) for step in steps] for steps in (expected, answered_steps(item.answer)))
        best = [(0.0, 0.0)] * (len(given) + 1)
        for step, one in zip(expected, wanted, strict=True):
            before = best[:]
            for place, other in enumerate(given, start=1):
                equal, alike = self._gain(step.weight, one, other)
                taken = (before[place - 1][0] + equal, before[place - 1][1] + alike)
                best[place] = max(before[place], best[place - 1], taken)
        return min(1.0, best[-1][1] / sum(step.weight for step in expected))

    def _seen(self, step: Step) -> tuple[str, str, Any]:
        """(subtype, canonical SMILES or "", fingerprint)."""
        molecule = self.molecule(step.smiles)
        if molecule is None:
            return step.subtype, "", None
        return step.subtype, self._chem.MolToSmiles(molecule), self._prints.GetFingerprint(molecule)

    def _gain(self, weight: float, one: tuple[str, str, Any], other: tuple[str, str, Any]) -> tuple[float, float]:
        from rdkit.DataStructs import TanimotoSimilarity

        if one[0] != other[0] or not one[1] or not other[1]:
            return 0.0, 0.0
        alike = float(TanimotoSimilarity(one[2], other[2]))
        return (weight if one[1] == other[1] else 0.0), (weight * alike if alike >= LIKENESS else 0.0)
