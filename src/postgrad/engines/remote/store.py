"""Objects below a URL, through fsspec: read, written, made once, listed and removed, each within a time.

Every question is asked on fsspec's own thread and given up when its time is over, so that a store that is away holds up
nobody who has signs of life to give. Whatever the library of a store raises comes out as an OSError.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any, Callable, Mapping, Sequence, TypeVar

from postgrad.errors import UserError

# Bytes a second that a slow line still manages.
SLOWEST = 1 << 18
# What is held in memory of one upload to S3 is the product of these.
TUNED: Mapping[str, Mapping[str, Any]] = {"s3": {"chunksize": 16 << 20, "max_concurrency": 4}}
# Else it asks for the size first, and where there is nothing for a list, which costs as much as a write.
READ_AT_ONCE: Mapping[str, Mapping[str, Any]] = {"s3": {"max_concurrency": 1}}
# Their libraries ask the store itself to refuse a second object of a name (`If-None-Match: *` or its like).
ASK_FOR_ONE = ("s3", "gs", "gcs", "az", "abfs", "abfss")
# How they answer then, by name and by status: S3 itself names the condition that failed, MinIO and others do not.
REFUSED = ("PreconditionFailed", "ConditionalRequestConflict", 412, 409)
# Elsewhere: two nodes that begin at the same time see each other's claims by then.
SETTLE_S = 2.0
# Where objects lie that only try what the store does.
TRIED = "jobs/tried"
AT_ONCE = 500
# While a store does not answer, the next question waits no longer than this; each one after it twice as long, or one
# that has become slow would never be heard.
AWAY_S = 1.0
# As libraries name it where this machine has no credentials: that does not pass.
UNKNOWN_HERE = ("NoCredentials", "PartialCredentials", "DefaultCredentials")
MISTAKES = (TypeError, AttributeError, NameError, AssertionError)
T = TypeVar("T")


class Store:
    """What lies below one URL. Keys are relative to it.

    Args:
        url: as fsspec reads it, such as `s3://bucket/prefix`. Credentials come from where its library looks for them.
        patience_s: for one small question.

    Raises:
        UserError: its library is not installed.
    """

    def __init__(self, url: str, patience_s: float) -> None:
        import fsspec

        self.url, self.patience_s = url.rstrip("/"), patience_s
        self._protocol = "s3" if url.startswith("s3a:") else url.partition("://")[0]
        try:
            self._system, root = fsspec.url_to_fs(self.url)
        except ImportError as missing:
            raise UserError(f"The store {self.url} cannot be reached: {missing}") from missing
        self._root = str(root).rstrip("/")
        self._makes_one: bool | None = None
        self._away_s = 0.0  # 0 while it answers.

    def read(self, key: str) -> bytes:
        """What an object holds.

        Raises:
            FileNotFoundError: there is none.
            OSError: nobody can tell now.
        """
        return bytes(self._ask("cat_file", self._path(key), **READ_AT_ONCE.get(self._protocol, {})))

    def read_all(self, keys: Sequence[str]) -> dict[str, bytes | OSError]:
        """What several small objects hold, asked side by side; for each that cannot be read, why.

        Raises:
            OSError: nobody can tell now of any.
        """
        paths = [self._path(key) for key in keys]
        found = self._ask("cat", paths, on_error="return", **READ_AT_ONCE.get(self._protocol, {}))
        told = {key: found[path] for key, path in zip(keys, paths, strict=True)}
        return {key: each if isinstance(each, bytes) else self._problem(each) for key, each in told.items()}

    def write(self, key: str, data: bytes, mode: str = "overwrite") -> None:
        """Put an object in place of what is there; whole or not at all, as far as the store holds to that."""
        self._with_parents(lambda: self._ask("pipe_file", self._path(key), data, mode=mode, _size=len(data)), key)

    def put(self, path: Path, key: str) -> None:
        """Upload a file."""
        size, tuned = path.stat().st_size, TUNED.get(self._protocol, {})
        self._with_parents(lambda: self._ask("put_file", str(path), self._path(key), _size=size, **tuned), key)

    def get(self, key: str, path: Path, size: int) -> None:
        """Download an object of this size."""
        self._ask("get_file", self._path(key), str(path), _size=size)

    def names(self, key: str) -> list[str]:
        """Keys of all objects below one, in order."""
        self._system.invalidate_cache()
        try:
            found = self._ask("find", self._path(key))
        except FileNotFoundError:
            return []
        finally:  # Some look up what they read in what they listed once.
            self._system.invalidate_cache()
        return sorted(str(path)[len(self._root) + 1 :] for path in found)

    def remove(self, keys: Sequence[str]) -> None:
        """Remove objects; those that are not there are gone already."""
        for first in range(0, len(keys), AT_ONCE):
            with suppress(FileNotFoundError):
                self._ask("rm", [self._path(key) for key in keys[first : first + AT_ONCE]])

    # --- made once ------------------------------------------------------------------------------------------------

    def take(self, key: str, data: bytes) -> bool:
        """Make an object that nobody has made yet; False where it is there.

        Args:
            data: of this caller alone. What the store says is not believed but read back: a question that was asked
                twice, because its first answer was lost, is refused by its own object.
        """
        if (found := self._found(key)) is not None:
            return found == data
        if not self.makes_one:
            return self._claimed(key, data)
        refused = OSError(errno.EIO, "it was written and is not there", key)
        try:
            self.write(key, data, mode="create")
        except OSError as problem:
            refused = problem
        if (found := self._found(key)) is None:
            raise refused
        return found == data

    @property
    def makes_one(self) -> bool:
        """True where the store refuses to make an object a second time. It is tried: some that speak S3 overwrite."""
        # Also where a try was broken off: nodes that differ in it would not see each other.
        if self._makes_one is None:
            self._makes_one = self._protocol in ASK_FOR_ONE and self._refuses_a_second()
        return self._makes_one

    def _refuses_a_second(self) -> bool:
        """Raises OSError where the store did not answer: that is no refusal."""
        key = f"{TRIED}/{uuid.uuid4().hex}"
        try:
            self.write(key, b"first", mode="create")
            try:
                self.write(key, b"second", mode="create")
            except OSError as problem:
                if not _is_refusal(problem):
                    raise
            return self.read(key) == b"first"
        finally:
            with suppress(OSError):  # It changes nothing in what was found, and another try would leave another object.
                self.remove([key])

    def _claimed(self, key: str, data: bytes) -> bool:
        """Everybody lays down a claim, waits, and looks: the first one by name wins, unless somebody has won already.
        Whoever asks again has the same claim. It holds where what one has written is seen by others within the time."""
        claim = f"{key}.claims/{hashlib.sha256(data).hexdigest()}"
        self.write(claim, data)
        time.sleep(SETTLE_S)
        if (found := self._found(key)) is not None:  # Its own too, where an earlier write landed after its time.
            return found == data
        if self.names(f"{key}.claims")[:1] != [claim]:
            return False
        self.write(key, data)
        return True

    def _found(self, key: str) -> bytes | None:
        try:
            return self.read(key)
        except FileNotFoundError:
            return None

    # --- asking ---------------------------------------------------------------------------------------------------

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"

    def _with_parents(self, write: Callable[[], object], key: str) -> None:
        """Write; where that needs a folder, as on servers of files, make it first."""
        try:
            write()
        except FileNotFoundError:
            if self._protocol in ASK_FOR_ONE:  # There are no folders: the bucket is not there.
                raise
            with suppress(FileExistsError):
                self._ask("makedirs", self._path(key).rpartition("/")[0])
            write()

    def _ask(self, method: str, *words: Any, _size: int = 0, **named: Any) -> Any:
        """Call a method of the file system; its coroutine, where it has one.

        Raises:
            OSError: it failed, or took too long.
        """
        from fsspec.asyn import get_loop

        system = self._system
        if system.async_impl:
            loop, asked = system.loop, getattr(system, f"_{method}")(*words, **named)
        else:
            loop, asked = get_loop(), asyncio.to_thread(getattr(system, method), *words, **named)
        answer = asyncio.run_coroutine_threadsafe(asked, loop)
        patience = self.patience_s + _size / SLOWEST
        waits = min(self._away_s or patience, patience)
        try:
            problem = answer.exception(waits)
            self._away_s = 0.0
        except TimeoutError:
            self._away_s = max(AWAY_S, 2 * waits) if self._away_s else AWAY_S
            raise TimeoutError(errno.ETIMEDOUT, "the store does not answer", self.url) from None
        finally:
            answer.cancel()
        if problem is None:
            return answer.result()
        raise self._problem(problem)

    def _problem(self, problem: BaseException) -> OSError:
        """What a library raised, as an OSError. A fault of this program is raised as it is."""
        if isinstance(problem, OSError):
            return problem
        if isinstance(problem, MISTAKES):
            raise problem
        name = type(problem).__name__
        code = errno.EACCES if name.startswith(UNKNOWN_HERE) else errno.EIO
        told = OSError(code, f"{name}: {problem}", self.url)
        told.__cause__ = problem
        return told


def opened(url: str, patience_s: float) -> Store:
    """The store, tried once: something is written, read, listed and removed.

    Raises:
        UserError: that does not work.
    """
    store = Store(url, patience_s)
    key = f"{TRIED}/{uuid.uuid4().hex}"
    try:
        store.write(key, key.encode())
        found, listed = store.read(key), store.names(key)
        store.remove([key])
        gone = _is_gone(store, key)
    except OSError as problem:
        said = str(problem.strerror or problem or type(problem).__name__)
        raise UserError(
            f"engine.storage: {url} cannot be used: {said}. Expected a place where this machine may write, read, list "
            "and remove objects. Check the address, that it answers, and the credentials that the library of the store "
            "finds here: docs/engines.md#without-a-shared-folder."
        ) from problem
    if found != key.encode() or listed != [key] or not gone:
        raise UserError(
            f"engine.storage: {url} does not give back what was written, list it, or forget what was removed. Expected "
            "a store that shows at once what was done, as S3 does. Take another one."
        )
    return store


def _is_refusal(problem: OSError) -> bool:
    """Whether the store answered that an object of this name is there. Libraries tell it as FileExistsError where they
    know the words of the store; else by what they were told, which is the cause of the error."""
    if isinstance(problem, FileExistsError):
        return True
    told: BaseException | None = problem
    while told is not None:
        response = getattr(told, "response", None)
        if isinstance(response, Mapping):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            return response.get("Error", {}).get("Code") in REFUSED or status in REFUSED
        told = told.__cause__  # The context may be what its caller was busy with.
    return False


def _is_gone(store: Store, key: str) -> bool:
    try:
        store.read(key)
    except FileNotFoundError:
        return True
    return False
