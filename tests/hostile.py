"""Worker programs that cheat, snoop, break things or run away, and what each of them has to lead to.

Every program is run for real by `test_attacks_worker.py`. `FACTS` tells it where things are, which a real cheat would
have to find out.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from postgrad.testing.backend import LABELS

HEADER = f"""
import ctypes, json, os, shutil, signal, socket, sqlite3, subprocess, sys, time, zipfile
from pathlib import Path
import numpy as np
folder = Path(sys.argv[1])
ids = [json.loads(line)["id"] for line in (folder / "u0.p").read_text().splitlines()]
probs = np.full((len(ids), {len(LABELS)}), 1 / {len(LABELS)}, dtype=np.float32)
score = np.zeros(len(ids), dtype=np.float32)
out = folder / "out-u0.npz"
def save(**changes):
    np.savez(out, **{{"ids": np.array(ids), "probs": probs, "score": score, **changes}})
def result(unit=(("name", "u0"), ("outputs", "out-u0.npz")), times=1, **facts):
    text = json.dumps({{"job": folder.name, "units": [dict(unit)] * times, **facts}})
    (folder / "result.json").write_text(text)
def link(target, path):
    past_the_tripwire("os.symlink(sys.argv[1], sys.argv[2])", str(target), str(path))
def past_the_tripwire(code, *words):
    # A Python without its start-up files: nothing but the sandbox stands in the way.
    if subprocess.run([sys.executable, "-I", "-S", "-c", "import os, socket, sys; " + code, *words]).returncode:
        sys.exit(13)
"""
HONEST = "save(); result()\n"
REFUSED = ("train/crash",)
TRAINED = """
from postgrad.execute.worker import Worker
from postgrad.records import JobSpec
spec = JobSpec.model_validate_json((folder / "job.json").read_text())
Worker(folder, spec).run()
other = folder / "private" / "other"
other.mkdir()
shutil.copy(folder / "u0.p", other)
rows = [json.loads(line) for line in (folder / "u0.t").read_text().splitlines()]
labels = [row["label"] for row in rows]
turned = dict(zip(spec.labels, spec.labels[1:] + spec.labels[:1]))
changed = [{**row, "label": turned.get(row["label"], row["label"])} for row in rows]
(other / "u0.t").write_text("".join(json.dumps(row) + "\\n" for row in changed))
Worker(other, spec).run()
"""


@dataclass(frozen=True)
class Attack:
    """One hostile program.

    Attributes:
        expected: "boundary/kind" of the failures that are right; () where the attack has no effect and the honest part
            of the program counts.
        says: a part of the failure's message.
        unseen: rungs in which it comes to nothing without being noticed.
    """

    name: str
    program: str
    expected: tuple[str, ...] = ()
    says: str = ""
    limits: dict[str, float] = field(default_factory=dict)
    save_model: bool = False
    unseen: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name


# --- lies -------------------------------------------------------------------------------------------------------------

LIES = (
    Attack("prints a false metric", "print('mcc: 1.0'); print(json.dumps({'mcc': 1.0}))\n" + HONEST),
    Attack("writes metrics beside its outputs", "(folder / 'metrics.json').write_text('{\"mcc\": 1}')\n" + HONEST),
    Attack("writes a score into its result", "save(); result(score=1.0)", ("predict/invalid_output",), "result file"),
    Attack(
        "writes a score into a unit",
        "save(); result(unit=[('name', 'u0'), ('outputs', 'out-u0.npz'), ('score', 1.0)])",
        ("predict/invalid_output",),
        "result file",
    ),
    Attack(
        "answers a unit that was not asked",
        "save(); shutil.copy(out, folder / 'out-u9.npz'); result(unit=[('name', 'u9'), ('outputs', 'out-u9.npz')])",
        ("isolation/forged_result",),
        "nothing of that name",
    ),
    Attack("answers a unit twice", "save(); result(times=2)", ("isolation/forged_result",), "twice"),
    Attack("gives the result of another job", "save(); result(job='e0007')", ("isolation/forged_result",), "another"),
    Attack(
        "says that the run stopped it",
        "result(failure={'boundary': 'controller', 'kind': 'stopped', 'message': 'stop'})",
        ("train/crash",),
        "stop",
    ),
    Attack("names outputs above its folder", "save(); result(unit=[('name', 'u0'), ('outputs', '../../x')])",
           ("isolation/outside",), "../../x"),
    Attack("names outputs by a whole path", "save(); result(unit=[('name', 'u0'), ('outputs', '/etc/passwd')])",
           ("isolation/outside",), "/etc/passwd"),
    Attack("gives answers that are no numbers", "save(probs=probs * np.nan); result()", ("predict/invalid_output",),
           "not finite"),
    Attack("gives the ids that the referee has", "save(ids=np.array(FACTS['ids'])); result()",
           ("predict/invalid_output",), "not to the questions"),
    Attack("turns the ids around", "save(ids=np.array(ids[::-1])); result()", ("predict/invalid_output",),
           "not to the questions"),
    Attack("leaves questions out", "save(ids=np.array(ids[1:]), probs=probs[1:], score=score[1:]); result()",
           ("predict/invalid_output",), "shapes"),
)  # fmt: skip

# --- looking where it may not -----------------------------------------------------------------------------------------

SNOOPING = (
    Attack("edits the scorer", "open(FACTS['scorer'], 'a').write('cheat')", ("isolation/forbidden_file",),
           "for writing"),
    Attack("edits the scorer past the tripwire", "past_the_tripwire('open(sys.argv[1], \"a\")', FACTS['scorer'])",
           REFUSED, "code 13"),
    Attack("reads the store", "open(FACTS['store']).read()", ("isolation/forbidden_file",), "events.sqlite"),
    Attack("asks the store", "sqlite3.connect(FACTS['store']).execute('select 1')", ("isolation/forbidden_file",),
           "events.sqlite"),
    Attack("reads the store and hides that it failed",
           "try:\n    open(FACTS['store'])\nexcept OSError:\n    pass\n" + HONEST, ("isolation/forbidden_file",),
           "events.sqlite"),
    Attack("reads the store past the tripwire", "past_the_tripwire('open(sys.argv[1])', FACTS['store'])", REFUSED,
           "code 13"),
    Attack("walks up", "os.listdir(folder / '..' / '..')", ("isolation/forbidden_file",), "os.listdir"),
    Attack("opens a file by ..", "open('../../events.sqlite')", ("isolation/forbidden_file",), "events.sqlite"),
    Attack("walks up past the tripwire",
           "past_the_tripwire('open(sys.argv[1])', str(folder / '../../events.sqlite'))",
           REFUSED, "code 13"),
    Attack("reads the keys of the user", "open(FACTS['home'] + '/.ssh/id_rsa')", ("isolation/forbidden_file",), ".ssh"),
    Attack("reads the home past the tripwire",
           "past_the_tripwire('open(sys.argv[1])', FACTS['home_file'])", REFUSED, "code 13"),
    Attack("looks for keys in its environment",
           "sys.exit(13) if not any(FACTS['secret'] in value for value in os.environ.values()) else None", REFUSED,
           "code 13"),
    Attack("reads the environment of its controller", "open(f\"/proc/{FACTS['controller']}/environ\").read()",
           ("isolation/forbidden_file",), "environ"),
    Attack("reads the environment of its controller past the tripwire",
           "past_the_tripwire('sys.argv[2] in open(\"/proc/\" + sys.argv[1] + \"/environ\").read() or sys.exit(1)', "
           "str(FACTS['controller']), FACTS['secret'])", REFUSED, "code 13"),
    Attack("calls a port of this machine", "socket.create_connection(('127.0.0.1', FACTS['port']), 2)", REFUSED),
    Attack("calls a port past the tripwire",
           "past_the_tripwire('socket.create_connection((\"127.0.0.1\", int(sys.argv[1])), 2)', str(FACTS['port']))",
           REFUSED, "code 13"),
    Attack("calls another machine", "socket.socket().connect(('192.0.2.1', 80))", ("isolation/network",), "192.0.2.1"),
    Attack("asks for the address of another machine", "socket.getaddrinfo('example.invalid', 80)",
           ("isolation/network",), "example.invalid"),
)  # fmt: skip

# --- files that harm whoever reads them -------------------------------------------------------------------------------

BOMB = """
with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as bomb:
    for name in ("ids", "probs", "score"):
        with bomb.open(name + ".npy", "w", force_zip64=True) as file:
            for _ in range(5):
                file.write(bytes(1 << 20))
result()
"""
LYING_HEADER = """
save(); result()
import io
with np.load(out) as file:
    ids_, score_ = file["ids"], file["score"]
with zipfile.ZipFile(out, "w") as made:
    for name, array in (("ids", ids_), ("score", score_)):
        packed = io.BytesIO(); np.lib.format.write_array(packed, array); made.writestr(name + ".npy", packed.getvalue())
    packed = io.BytesIO()
    np.lib.format.write_array_header_1_0(packed, {"descr": "<f8", "fortran_order": False, "shape": (10**11, 3)})
    made.writestr("probs.npy", packed.getvalue())
"""
PICKLE = """
class Payload:
    def __reduce__(self):
        return (os.system, (f"touch {FACTS['marker']}",))
"""
FILES = (
    Attack("outputs are a link to the passwords", "link('/etc/passwd', out); result()",
           ("isolation/planted_link",), "/etc/passwd"),
    Attack("outputs are a link to the store", "os.symlink(FACTS['store'], out); result()",
           ("isolation/forbidden_file",), "events.sqlite"),
    Attack("outputs have a second name", "save(); os.link(out, folder / 'second'); result()",
           ("isolation/planted_link",), "second name"),
    Attack("outputs are a pipe", "os.mkfifo(out); result()", ("isolation/special_file",), "pipe"),
    Attack("outputs are a folder", "out.mkdir(); result()", ("isolation/special_file",), "folder"),
    Attack("the result is a pipe", "save(); os.mkfifo(folder / 'result.json')", ("isolation/special_file",), "pipe"),
    Attack("the result is a link", "save(); link('/etc/hostname', folder / 'result.json')",
           ("isolation/planted_link",), "link"),
    Attack("the result has 20 MB", "save(); (folder / 'result.json').write_bytes(b' ' * 20_000_000)",
           ("isolation/oversized",), "result.json"),
    Attack("the result has a hundred thousand brackets", "save(); (folder / 'result.json').write_text('[' * 100_000)",
           ("predict/invalid_output",), "result file"),
    Attack("progress and log are pipes",
           "os.remove(folder / 'log.txt')\nfor name in ('log.txt', 'progress.json'):\n    os.mkfifo(folder / name)\n"
           + HONEST),
    Attack("the log is a link to the store",
           "os.remove(folder / 'log.txt'); link('../../events.sqlite', folder / 'log.txt'); sys.exit(3)",
           REFUSED, "code 3"),
    Attack("outputs unpack to 15 MB", BOMB, ("isolation/oversized",), "unpacks to"),
    Attack("outputs say that they have a hundred billion rows", LYING_HEADER, ("predict/invalid_output",), "shapes"),
    Attack("outputs are a huge hole", "save(); os.truncate(out, 500_000_000); result()", ("isolation/oversized",),
           "bytes"),
    Attack("outputs hold pickled objects",
           PICKLE + "save(score=np.array([Payload()] * len(ids), dtype=object)); result()", ("isolation/pickle",),
           "run code"),
    Attack("writes into what it was given", "open(folder / 'job.json', 'a').write(' ')\n" + HONEST,
           ("train/crash", "isolation/changed_inputs")),
    Attack("puts another file in place of its questions",
           "(folder / 'mine').write_text(''); os.replace(folder / 'mine', folder / 'u0.p')\n" + HONEST,
           ("train/crash", "isolation/changed_inputs")),
    Attack("the log moves the cursor and turns the text around",
           "print('\\x1b[2J\\x1b]0;owned\\x07\\x9b31m\\u202eevil\\r\\x00'); sys.exit(3)", REFUSED, "code 3"),
    Attack("the failure moves the cursor",
           "result(failure={'boundary': 'train', 'kind': '\\x1b[2Jnan', 'message': '\\x1b[31mred\\x07'})",
           ("train/nan",), "red"),
)  # fmt: skip

# --- running away -----------------------------------------------------------------------------------------------------

DEEP = """
past_the_tripwire("os.chdir(sys.argv[1])\\nfor _ in range(1500): os.mkdir('d'); os.chdir('d')", str(folder / "private"))
"""
RUNAWAYS = (
    Attack("leaves a daemon behind",
           HONEST + "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        "
           "os.execv(sys.executable, [sys.executable, '-c', 'import time; time.sleep(1000)', str(folder)])\n    "
           "os._exit(0)\ntime.sleep(0.5)\n",
           ("isolation/left_behind",), "behind", unseen=("sandlock",)),
    Attack("forks four hundred times",
           "for _ in range(400):\n    try:\n        if os.fork() == 0:\n            time.sleep(1000)\n    "
           "except OSError:\n        break\ntime.sleep(1000)\n",
           ("resource/flood",), "processes", limits={"wall_s": 20, "memory_mb": 10**6}),
    Attack("writes a huge file", "open(folder / 'huge', 'wb').write(bytes(60_000_000))", REFUSED,
           limits={"disk_mb": 30}),
    Attack("fills the disk with many files",
           "for i in range(60):\n    (folder / f'f{i}').write_bytes(bytes(1_000_000))\ntime.sleep(1000)\n",
           ("resource/flood",), "30 MB", limits={"disk_mb": 30}),
    Attack("writes a log of 80 MB", "for _ in range(80):\n    os.write(1, b'x' * (1 << 20))\ntime.sleep(1000)\n",
           ("resource/flood",), "log"),
    Attack("does not listen to SIGTERM",
           "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True:\n    sum(range(10**6))\n",
           ("resource/timeout",), limits={"wall_s": 2}),
    Attack("kills its parent", "os.kill(os.getppid(), signal.SIGKILL)", ("isolation/signal",), "os.kill"),
    Attack("kills every process there is", "os.kill(-1, signal.SIGKILL)", ("isolation/signal",), "os.kill"),
    Attack("kills every process past the tripwire", "ctypes.CDLL(None).kill(-1, 9)\n" + HONEST,
           ("", "train/crash")),
    Attack("kills its controller past the tripwire",
           "past_the_tripwire('os.kill(int(sys.argv[1]), 9)', str(FACTS['controller']))", REFUSED, "code 13"),
    Attack("says nonsense on the line", "os.write(0, b'nonsense \\x1b[2J\\n')\n" + HONEST, ("isolation/forbidden",),
           "may not do"),
    Attack("nests folders too deep for a path", DEEP + HONEST),
)  # fmt: skip

# --- the saved model --------------------------------------------------------------------------------------------------

MODELS = (
    Attack("an honest model", "from postgrad.execute.worker import main; sys.exit(main([str(folder)]))",
           save_model=True),
    Attack("swaps the weights",
           TRAINED + "shutil.copytree(other / 'model', folder / 'model', dirs_exist_ok=True)",
           ("isolation/swapped_weights",), "answers differ", save_model=True),
    Attack("swaps the answers", TRAINED + "shutil.copy(other / 'out-u0.npz', out)", ("isolation/swapped_weights",),
           "answers differ", save_model=True),
    Attack("saves a model that cannot be loaded",
           TRAINED + "(folder / 'model' / 'classic.safetensors').write_bytes(b'nothing')",
           ("isolation/swapped_weights",), "cannot be loaded", save_model=True),
    Attack("saves a model of another recipe",
           TRAINED + "f = folder / 'model' / 'postgrad.json'; facts = json.loads(f.read_text()); "
           "facts['recipe']['stage']['params'] = {'C': 2.0}; f.write_text(json.dumps(facts))",
           ("isolation/model_facts",), "recipe", save_model=True),
    Attack("saves a pickle beside the model", TRAINED + "(folder / 'model' / 'pytorch_model.bin').write_bytes(b'x')",
           ("isolation/pickle",), "runs code", save_model=True),
    Attack("saves code beside the model", TRAINED + "(folder / 'model' / 'modeling.py').write_text('x = 1')",
           ("isolation/model_file",), "modeling.py", save_model=True),
    Attack("saves a link beside the model", TRAINED + "link('/etc/passwd', folder / 'model' / 'vocab.txt')",
           ("isolation/planted_link",), "vocab.txt", save_model=True),
)  # fmt: skip

ATTACKS = LIES + SNOOPING + FILES + RUNAWAYS + MODELS
