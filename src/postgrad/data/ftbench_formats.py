"""The official file formats of FT-Bench's data sets -> rows with `text` and `answer`. Each reader takes a whole file.

A file that is not in its format makes a reader raise `ValueError`, `KeyError`, `TypeError`, `AttributeError` or
`IndexError`; `ftbench.py` turns that into a message.
"""

from __future__ import annotations

import csv
import io
import json
from typing import Any, Callable, Iterator
from zipfile import ZipFile

Rows = Iterator[dict[str, Any]]
MAX_UNPACKED = 100_000_000
NO_HALLMARK = "NULL"


def sst2(data: bytes) -> Rows:
    """Lines of a sentence, a tab, and 0 (negative) or 1 (positive); no header."""
    for line in data.decode("utf-8").splitlines():
        if line.strip():
            sentence, label = line.rsplit("\t", 1)
            yield {"text": sentence, "answer": {"0": "0", "1": "1"}[label.strip()]}


def aci_bench(data: bytes) -> Rows:
    """{"data": [{"src": dialogue, "tgt": clinical note, "file": name}]}."""
    for row in json.loads(data)["data"]:
        yield {"text": row["src"], "answer": row["tgt"], "file": row["file"]}


def hoc(data: bytes) -> Rows:
    """A JSON line an abstract: `pmid`, `sentences`, and for each sentence the paths of its labels in the taxonomy.

    The hallmark is what stands in front of the first `--`. An abstract has the hallmarks of its sentences; the answer
    is their list in the order of the alphabet, [] where it has none.
    """
    for line in data.decode("utf-8").splitlines():
        if line.strip():
            row = json.loads(line)
            found = {path.split("--")[0].strip() for paths in row["labels"] for path in paths}
            yield {"text": " ".join(row["sentences"]), "answer": sorted(found - {NO_HALLMARK}), "pmid": row["pmid"]}


def hoc_archive(archive: ZipFile) -> bytes:
    """The repository's archive as the JSON lines of `hoc`: a file of sentences and one of labels for each abstract.

    A label file has `<` in front of the labels of each sentence, and `AND` between the labels of one.
    """
    names = _members(archive)
    texts = {name.rsplit("/", 1)[1]: name for name in names if "/text/" in name and name.endswith(".txt")}
    labels = {name.rsplit("/", 1)[1]: name for name in names if "/labels/" in name and name.endswith(".txt")}
    lines = []
    for file in sorted(texts.keys() & labels.keys()):
        sentences = [line for line in archive.read(texts[file]).decode("utf-8").splitlines() if line.strip()]
        groups = archive.read(labels[file]).decode("utf-8").split("<")[1:]
        paths = [[path.strip() for path in group.split("AND") if path.strip()] for group in groups]
        row = {"pmid": file.removesuffix(".txt"), "sentences": sentences, "labels": paths}
        lines.append(json.dumps(row, ensure_ascii=False))
    return "\n".join(lines).encode()


def csbench(kind: str) -> Callable[[bytes], Rows]:
    """A JSON list of questions of several formats; those of one format. An assertion is answered True or False."""

    def rows(data: bytes) -> Rows:
        for row in json.loads(data):
            if row["Format"] == kind:
                kept = {key.lower(): row[key] for key in ("ID", "Domain", "SubDomain", "Tag")}
                answer = row["Answer"]
                text = _with_options(row["Question"], row, "ABCD") if kind == "Multiple-choice" else row["Question"]
                yield {"text": text, "answer": str(answer) if isinstance(answer, bool) else answer, **kept}

    return rows


def lawbench(data: bytes) -> Rows:
    """A JSON list of `instruction` (the same in every row of a task), `question` and `answer`."""
    for row in json.loads(data):
        yield {"text": row["question"], "answer": row["answer"], "instruction": row["instruction"]}


def omebench(data: bytes) -> Rows:
    """A JSON list of reactions with their mechanisms. The answer keeps what the official score reads of each step."""
    for row in json.loads(data):
        asked = {"reactants": row["reactants_smiles"], "products": row["products_smiles"]}
        steps = [
            {
                "subtype": step["subtype"],
                "intermediate_smiles": step["intermediate_smiles"],
                "step_weight": round(step["step_weight"], 3),
            }
            for step in row["mechanism"]
        ]
        text = json.dumps({**asked, "conditions": row["conditions"]}, ensure_ascii=False)
        yield {"text": text, "answer": steps, "reaction_id": row["reaction_id"], "level": row["level"]}


def tomg_train(data: bytes) -> Rows:
    """csv of OpenMolIns: `Instruction` and the `molecule` that answers it."""
    for row in _csv(data):
        yield {"text": row["Instruction"], "answer": row["molecule"]}


def tomg_test(subtask: str) -> Callable[[bytes], Rows]:
    """csv of a subtask of TOMG-Bench: `Instruction`, and in the other columns what is asked for.

    No molecule is the right one, so the answer is a JSON object of the subtask and its columns, for `tomg_success`.
    """

    def rows(data: bytes) -> Rows:
        for row in _csv(data):
            asked = {key: value for key, value in row.items() if key and key != "Instruction"}
            instruction = row["Instruction"]
            yield {"text": instruction, "answer": {"subtask": subtask, "instruction": instruction, **asked}}

    return rows


def openfindata(data: bytes) -> Rows:
    """A JSON list of `question`, options `A` to `E`, as many as there are, and the letter in `answer`."""
    for row in json.loads(data):
        yield {"text": _with_options(row["question"], row, "ABCDE"), "answer": row["answer"]}


def econlogicqa(data: bytes) -> Rows:
    """csv of `Question`, four events `A` to `D`, and in `Answer` their order as "C, A, B, D"."""
    for row in _csv(data):
        yield {"text": _with_options(row["Question"], row, "ABCD"), "answer": row["Answer"]}


def gta(data: bytes) -> Rows:
    """JSON object of queries: `tools`, `files`, and `dialogs` in OpenAI's format with the reference's tool calls.

    The text part: what a person asked, which kinds of files came along, and which tools there are. The answer is the
    list of tools that the reference calls, each once, in the order of their first call.
    """
    for name, row in json.loads(data).items():
        asked = next(turn["content"] for turn in row["dialogs"] if turn["role"] == "user")
        calls = [call for turn in row["dialogs"] for call in turn.get("tool_calls") or ()]
        used = list(dict.fromkeys(call["function"]["name"] for call in calls))
        files = ", ".join(file["type"] for file in row["files"]) or "none"
        tools = "\n".join(f"- {tool['name']}: {tool.get('description', '')}".rstrip(": ") for tool in row["tools"])
        yield {"text": f"{asked}\nFiles: {files}\nTools:\n{tools}", "answer": used, "id": name}


def member(name: str) -> Callable[[ZipFile], bytes]:
    """Takes the one file of this name out of an archive, in whatever folder it is."""

    def unpack(archive: ZipFile) -> bytes:
        found = [each for each in _members(archive) if each.rsplit("/", 1)[-1] == name]
        if len(found) != 1:
            raise ValueError(f"{len(found)} files called {name} in the archive")
        return archive.read(found[0])

    return unpack


def _members(archive: ZipFile) -> list[str]:
    if sum(info.file_size for info in archive.infolist()) > MAX_UNPACKED:
        raise ValueError(f"the archive unpacks to more than {MAX_UNPACKED:,} bytes")
    return archive.namelist()


def _csv(data: bytes) -> Iterator[dict[str, str]]:
    return iter(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))


def _with_options(question: str, row: dict[str, Any], letters: str) -> str:
    options = [f"{letter}. {row[letter]}" for letter in letters if row.get(letter) not in (None, "")]
    return "\n".join([question.strip(), *options])
