"""HINT3: intents of three live chat bots (Arora et al. 2020, arXiv 2009.13833; github.com/hellohaptik/HINT3).

Finds or downloads the published files and checks their hashes; never copies them into the project. The data is under
the Open Database License 1.0, its contents under the Database Contents License 1.0. v1 holds the labels of the
paper's table, v2 the corrected ones: scores on the two must not be compared.
"""

from __future__ import annotations

from pathlib import Path

from postgrad.data.homes import Home
from postgrad.errors import UserError, near_miss

PREFIX = "hint3:"
HINT3_OUT_OF_SCOPE = "NO_NODES_DETECTED"
HINT3_INPUT = "sentence"
HINT3_TARGET = "label"
COMMIT = "99965c8"
DOWNLOAD = f"https://raw.githubusercontent.com/hellohaptik/HINT3/{COMMIT}"
HOME = Home(
    "HINT3",
    "hint3",
    "clone github.com/hellohaptik/HINT3 and put the content of its dataset folder into a folder hint3 under "
    "$POSTGRAD_DATA.",
)

# sha256 of the files at COMMIT, by (bot/version, part)
HASHES: dict[tuple[str, str], str] = {
    ("sofmattress/v1", "train"): "0addf4dc4b9df1e71509da5318d5a9f6e9a5d6eb98b9584d55cab3da7badf4b1",
    ("sofmattress/v1", "test"): "8d36c0e5d49225f07b8cf5ee582e0a083479af97cbd612e104099176a9648043",
    ("curekart/v1", "train"): "f5dd24f36db6ee00524a6626200a26855139671c641227dff3adaca0c7ac652a",
    ("curekart/v1", "test"): "19173881f51949b81d06f6df2ce4561fdf42b3bfaaafd47410042e99c59d0cfd",
    ("sofmattress/v2", "train"): "0addf4dc4b9df1e71509da5318d5a9f6e9a5d6eb98b9584d55cab3da7badf4b1",
    ("sofmattress/v2", "test"): "9c4746f7cf445b5db276260e1c05b9e7b102fa2bca0ce1ace20f51df0ba53aae",
    ("curekart/v2", "train"): "99620b357d20801cbbebe2823d606d1afecd9414074d97a7386aaf2493f8911f",
    ("curekart/v2", "test"): "47bf651cafa8b8f476ca4bea3052ee9a29c5bc6a4d841f2162f12ad16064f5a0",
}

# The same for preds/, by (system, bot)
PUBLISHED: dict[tuple[str, str], str] = {
    ("dialogflow", "sofmattress"): "e19cbe39d620525ebf888e93ac93ef6aa6594565418b18e365e95b99e205ff3d",
    ("luis", "sofmattress"): "9d3cbc8d686d8805dd8137c7e0f4403faa7544403bf4912875eebe61fda35382",
    ("rasa", "sofmattress"): "31f2c482ce8383dca87c39275bbf1c61b160db5c018f218656f19ca59ec52785",
    ("haptik", "sofmattress"): "9764c287a93b30292e7d978fd20b325a4938775fb0ae71ad2fcb675982305132",
    ("bert", "sofmattress"): "3422f569f7b491365a3224a4a46afda7b965161c2ec3f61b64394d37e376815a",
    ("dialogflow", "curekart"): "95f47e6142187d59f888f4a8f44a1f2e576ea76122c7971b6200516bef5e8900",
    ("luis", "curekart"): "37a18accdd36a89289fc87c84616c52522e91f3fb310e82b519d16c2d14d952b",
    ("rasa", "curekart"): "fbe3e74e42464739383b835eaf650d3511d849d3f21cf3398fbc262c169ae9a1",
    ("haptik", "curekart"): "fe597ba6faf3097131a7a94c0036f88c451be44816f333a1b86749ff4129f711",
    ("bert", "curekart"): "7282215c810c47ff99cbc285c22b7c53be5b261dc396f139832cebcc63d2d7ea",
}


def check_hint3(source: str, part: str) -> str:
    """Return BOT/VERSION of `hint3:BOT/VERSION`.

    Raises:
        UserError: no such name, or it has no such part.
    """
    name = source.removeprefix(PREFIX)
    known = sorted({known for known, _ in HASHES})
    if name not in known:
        listed = ", ".join(PREFIX + each for each in known)
        raise UserError(f"There is no built-in data set '{source}'.{near_miss(name, known)} Known: {listed}.")
    if (name, part) not in HASHES:
        raise UserError(f"{source} has a train and a test file, and no {part} file. Leave '{part}' out of the task.")
    return name


def hint3_file(source: str, part: str) -> Path:
    """Return the verified file of a part of `hint3:BOT/VERSION`.

    Looks in $POSTGRAD_DATA, in ../shared/data, in the user's cache folder, and then downloads into the cache folder.

    Raises:
        UserError: no such name or part, the file has another hash, or it is not here and cannot be downloaded.
    """
    name = check_hint3(source, part)
    bot, version = name.split("/")
    relative = Path(version, part, f"{bot}_{part}.csv")
    return _find(relative, f"dataset/{relative.as_posix()}", HASHES[name, part])


def published_file(system: str, bot: str) -> Path:
    """Return the verified prediction file of a published system on v1: one row for each row of the v1 test file.

    Args:
        system: dialogflow, luis, rasa, haptik or bert.
        bot: sofmattress or curekart.

    Raises:
        UserError: as `hint3_file`.
    """
    if (system, bot) not in PUBLISHED:
        known = ", ".join(f"{known_system}/{known_bot}" for known_system, known_bot in PUBLISHED)
        raise UserError(f"HINT3 has no published predictions of '{system}' on '{bot}'. Known: {known}.")
    name = f"{system}_{bot}.csv"
    return _find(Path("published", "preds", name), f"preds/{name}", PUBLISHED[system, bot])


def _find(relative: Path, remote: str, expected: str) -> Path:
    return HOME.find(relative, f"{DOWNLOAD}/{remote}", expected)


def download(url: str, target: Path, expected: str) -> Path:
    """Download a file to `target`, verify it, and return its path.

    Raises:
        UserError: it cannot be downloaded or kept, or it has another hash than expected.
    """
    return HOME.download(url, target, expected)
