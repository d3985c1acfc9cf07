"""Where the files of FT-Bench's data sets are, and what their bytes are where that is known.

A file with a sha256 is verified. Those without one were not at hand when this was written: they are read from their
public homes as those describe them.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping
from zipfile import BadZipFile, ZipFile

from postgrad.data import ftbench_formats as formats
from postgrad.data.homes import Home
from postgrad.errors import UserError

HOME = Home(
    "This data set of FT-Bench",
    "ftbench",
    "download that file elsewhere and put it under $POSTGRAD_DATA/ftbench, in the folder that docs/ftbench.md names.",
    max_bytes=50_000_000,
)
GITHUB, HUB = "https://raw.githubusercontent.com", "https://huggingface.co/datasets"
Reader = Callable[[bytes], Iterator[dict[str, Any]]]
Slices = Mapping[str, tuple[float, float]]
WHOLE: Slices = {"test": (0.0, 0.25), "dev": (0.25, 0.4), "train": (0.4, 1.0)}
# The sizes of the split that the BLURB benchmark made (Gu et al. 2021); which abstract is where is another matter.
HOC_SLICES: Slices = {"test": (0.0, 0.2), "dev": (0.2, 0.3), "train": (0.3, 1.0)}
# 45,000 questions are too many for a CPU: about 500 to test on, and 200 for the search.
TOMG_SLICES: Slices = {"test": (0.0, 0.0111), "dev": (0.0111, 0.0155)}


@dataclass(frozen=True)
class File:
    """One file.

    Attributes:
        path: under ftbench/ of the data folder.
        url: of the file, or of the zip archive that it comes in.
        rows: reads the file.
        sha256: of the file itself; None where it is not known.
        unpack: makes the file's bytes from the archive; None where the url is that of the file.
    """

    path: str
    url: str
    rows: Reader
    sha256: str | None = None
    unpack: Callable[[ZipFile], bytes] | None = None


@dataclass(frozen=True)
class Release:
    """One data set.

    Attributes:
        files: part -> the files that its rows come from.
        slices: part -> the share of those files, by a hash of the text, that is its own; the whole for other parts.
    """

    files: Mapping[str, tuple[File, ...]]
    slices: Slices = field(default_factory=dict)


def content(file: File) -> bytes:
    """The bytes of a file: from this machine, else from its public home.

    Raises:
        UserError: it is not here and cannot be downloaded, or it is not what it should be.
    """
    relative = Path(file.path)
    if file.unpack is None:
        return HOME.find(relative, file.url, file.sha256).read_bytes()
    local = HOME.local(relative, file.sha256)
    if local is not None:
        return local.read_bytes()
    archive = HOME.find(relative.parent / file.url.rsplit("/", 1)[1], file.url, None)
    try:
        with ZipFile(io.BytesIO(archive.read_bytes())) as opened:
            return file.unpack(opened)
    except (BadZipFile, ValueError, KeyError, RuntimeError) as wrong:
        raise UserError(
            f"{archive} is not the published archive: {wrong}. Delete it, and it is downloaded again."
        ) from wrong


def _split(files: tuple[File, ...], slices: Slices = WHOLE) -> Release:
    """A release without a train file: all parts are slices of the same files."""
    return Release({part: files for part in ("train", "dev", "test")}, slices)


# --- with known hashes ------------------------------------------------------------------------------------------------

SST2_HASHES = {
    "train": "ec192f833a64da08f475488a77b0d0b47db47acd0f458bd18433fc793b569920",
    "dev": "eddea6b39e601dd4e7a672b53cc40fdf6019fa80522f351206c24340ca5d9359",
    "test": "831169c7e2e429d6026e1bdbb542f33b636e3e596caad9602ebc953c205928b7",
}
ACI_HASHES = {
    "train_full": "aa4d5afbcbe5e26bc0aa79cedaa3f3f4ff54d4fd4fb15dd4449259da0d31d77a",
    "valid_full": "64c79694f939acd13a0497444ea025897e25adef8ab728fe85082f7c37ffeb35",
    "clinicalnlp_taskB_test1_full": "8ac8782e027b410a25d909f862124b2ed8827bfb64e62833bed9704c3d02dd69",
    "clinicalnlp_taskC_test2_full": "22eac3d9b12dd657c1034737473c426b7d8e0afe67397f5b40a2cd300b1a0e2c",
    "clef_taskC_test3_full": "e68472c6015566b35289c16ae30659d72180055f0e9432d8e357d74b204e8a19",
}
LAWBENCH_HASHES = {
    "1-2": "860d9f9e64706d5396d014027e571e1191b25c753fbea35a31710fc741fa8aa3",
    "2-2": "293d1876af2cf3f15061817aaf25e817eb977b0134ac3cec2189adf4a003389e",
    "2-4": "7f9a55fa37d8bc4d1fb1306e728cc98caa0e596747d6200c77b693703d2dc260",
    "2-5": "68782e85bef4f0459878c89b5fb5897f92ad79bf0603c48e75769b0bd6dff1d1",
    "3-1": "6ca91fff5ab6cd4fd6f46316edf0e4c6fd5bddd3ebf73ad3e7dc505e29591c1a",
    "3-3": "64378a7d7c3548cbe336d989f50a1301ba531ef53fc97b4dd879fda7e6fec755",
    "3-6": "17f8f78c9c279417455cd543577468acb16e88a3193b73c1f3d67240b8fe7fdf",
    "3-8": "3eb1989dd55e03e1414d8a68854e551e044d8d32544971e63c9d24d271374382",
}
CSBENCH_HASH = "857e5edea44168e0203f3b3dfb850a8f45da51f383a2087bc392164aca4d1e91"
HOC = File(
    "hoc/hoc.jsonl",
    "https://github.com/sb895/Hallmarks-of-Cancer/archive/refs/heads/master.zip",
    formats.hoc,
    "47e3c3964d137f1e257aebf40d654f8adc4f2fa4cf288625502195db553e47fb",
    formats.hoc_archive,
)
OMEBENCH = File(
    "omebench/oMe_Gold.json",
    f"{GITHUB}/skylarkie/oMeBench/main/data/oMe_Gold.json",
    formats.omebench,
    "978958bbf3f2ee9ab7cc433eec0117d14baf88a254ac85eed44febe80f84c16b",
)


def _sst2() -> Release:
    home = f"{GITHUB}/clairett/pytorch-sentiment-classification/master/data/SST2"
    known = SST2_HASHES.items()
    return Release({part: (File(f"sst2/{part}.tsv", f"{home}/{part}.tsv", formats.sst2, is_),) for part, is_ in known})


def _aci_bench(test: str) -> Release:
    def file(name: str) -> tuple[File, ...]:
        url = f"{GITHUB}/wyim/aci-bench/main/data/challenge_data_json/{name}.json"
        return (File(f"aci-bench/{name}.json", url, formats.aci_bench, ACI_HASHES[name]),)

    return Release({"train": file("train_full"), "dev": file("valid_full"), "test": file(test)})


def _csbench(kind: str) -> Release:
    url = f"{GITHUB}/csbench/csbench/main/Dataset/CSBench-EN/valid.json"
    return _split((File("csbench/valid.json", url, formats.csbench(kind), CSBENCH_HASH),))


def _lawbench(task: str) -> Release:
    url = f"{GITHUB}/open-compass/LawBench/main/data/zero_shot/{task}.json"
    return _split((File(f"lawbench/{task}.json", url, formats.lawbench, LAWBENCH_HASHES[task]),))


# --- without ----------------------------------------------------------------------------------------------------------

TOMG_SUBTASKS = (
    *("MolCustom_AtomNum", "MolCustom_BondNum", "MolCustom_FunctionalGroup"),
    *("MolEdit_AddComponent", "MolEdit_DelComponent", "MolEdit_SubComponent"),
    *("MolOpt_LogP", "MolOpt_MR", "MolOpt_QED"),
)
OPENFINDATA_TASKS = (
    *("emotion_identification", "entity_disambiguation", "financial_facts", "data_inspection"),
    *("financial_terminology", "metric_calculation", "value_extraction", "intent_understanding"),
)


def _tomg() -> Release:
    train = File("tomg-bench/train.csv", f"{HUB}/phenixace/OpenMolIns-light/resolve/main/train.csv", formats.tomg_train)
    home = f"{HUB}/phenixace/S2-TOMG-Bench/resolve/main"
    asked = tuple(
        File(f"tomg-bench/{name}.csv", f"{home}/{name}.csv", formats.tomg_test(name.split("_")[1]))
        for name in TOMG_SUBTASKS
    )
    return Release({"train": (train,), "dev": asked, "test": asked}, TOMG_SLICES)


def _openfindata() -> Release:
    url = "https://github.com/open-compass/OpenFinData/releases/download/release/openfindata_release.zip"
    files = (
        File(f"openfindata/{name}.json", url, formats.openfindata, None, formats.member(f"{name}.json"))
        for name in OPENFINDATA_TASKS
    )
    return _split(tuple(files))


def _econlogicqa() -> Release:
    home = f"{HUB}/yinzhu-quan/econ_logic_qa/resolve/main/data"
    names = {"train": "train", "dev": "val", "test": "test"}.items()
    return Release({part: (File(f"econlogicqa/{n}.csv", f"{home}/{n}.csv", formats.econlogicqa),) for part, n in names})


def _gta() -> Release:
    return _split((File("gta/dataset.json", f"{HUB}/Jize1/GTA/resolve/main/dataset.json", formats.gta),))


#: name behind `ftbench:` -> its files
RELEASES: Mapping[str, Release] = {
    "sst2": _sst2(),
    # Which of the three official test files FT-Bench reads is not known. The first is 40 of their 120 dialogues.
    "aci-bench": _aci_bench("clinicalnlp_taskB_test1_full"),
    "aci-bench/test2": _aci_bench("clinicalnlp_taskC_test2_full"),
    "aci-bench/test3": _aci_bench("clef_taskC_test3_full"),
    "hoc": _split((HOC,), HOC_SLICES),
    "cs-bench": _csbench("Multiple-choice"),
    "cs-bench/assertion": _csbench("Assertion"),
    "cs-bench/fill-in-the-blank": _csbench("Fill-in-the-blank"),
    "cs-bench/open-ended": _csbench("Open-ended"),
    **{f"lawbench/{task}": _lawbench(task) for task in LAWBENCH_HASHES},
    "omebench": _split((OMEBENCH,)),
    "tomg-bench": _tomg(),
    "openfindata": _openfindata(),
    "econlogicqa": _econlogicqa(),
    "gta": _gta(),
}
