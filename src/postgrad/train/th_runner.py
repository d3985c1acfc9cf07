"""The program inside the environment of Training Hub: `python -P th_runner.py SPEC`.

Imports the standard library and Training Hub, nothing of Postgrad. It calls one algorithm and ends; what that returned
is not passed on, because whoever started this goes by the files that are left.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1
TOO_LARGE = 3


def die_with_parent(parent: int) -> None:
    """Have the kernel end this process when the one that started it dies (Linux), which it may have done already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit(128 + signal.SIGTERM)


def loaded(file: str) -> Any:
    """A module from a file beside this one, which is on no path: it needs the libraries of this environment."""
    found = importlib.util.spec_from_file_location(Path(file).stem, file)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module
    found.loader.exec_module(module)
    return module


def estimated(hub: Any, asked: dict[str, Any], file: Path) -> bool:
    """Write what Training Hub thinks the training takes, in bytes; False where one GPU cannot hold it."""
    import torch

    memory_estimator = importlib.import_module("training_hub.profiling.memory_estimator")
    # It would note every model in a file of its own package, which is not for a job to write.
    memory_estimator.BasicEstimator._update_model_storage = lambda self: None
    gpu = torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else 0
    low, middle, high = hub.estimate(num_gpus=1, **({"gpu_memory": gpu} if gpu else {}), verbose=0, **asked)
    found = {"low": float(low), "middle": float(middle), "high": float(high), "gpu": gpu}
    file.write_text(json.dumps(found), encoding="utf-8")
    print(f"estimated memory: {low / 1e9:.2f} to {high / 1e9:.2f} GB", flush=True)
    return not gpu or low <= gpu


def main(arguments: list[str]) -> int:
    spec = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    die_with_parent(spec["parent"])
    hub: Any = importlib.import_module("training_hub")

    print(f"training_hub {getattr(hub, '__version__', '')}: {spec['algorithm']}", flush=True)
    called = dict(spec["arguments"])
    if spec.get("register"):
        loaded(spec["register"]).register(hub)
    if spec.get("reward"):
        called["reward_fn"] = loaded(spec["reward"]).exact_answer
    if spec.get("estimate") and not estimated(hub, spec["estimate"], Path(spec["estimate_file"])):
        return TOO_LARGE
    returned = getattr(hub, spec["algorithm"])(**called)
    print(f"{spec['algorithm']} returned a {type(returned).__name__}", flush=True)
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: some backends leave threads behind that would be waited for.
    os._exit(code)
