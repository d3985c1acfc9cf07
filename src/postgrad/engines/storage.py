"""What is wrong with `engine.storage`, as far as it can be said without reaching it."""

from __future__ import annotations

import re
from typing import Iterator
from urllib.parse import urlsplit

from postgrad.errors import near_miss
from postgrad.records import EngineSpec

EXAMPLE = "s3://bucket/prefix"
# Of one process, or of one machine: others do not see it.
OWN = {
    "file": "a folder that all nodes see needs no engine.storage. Put the run there with --runs-dir",
    "local": "a folder that all nodes see needs no engine.storage. Put the run there with --runs-dir",
    "memory": "no other process sees it. Take a store that nodes reach",
}
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}


def storage_problems(spec: EngineSpec) -> Iterator[str]:
    """One sentence for each fault: what was found, what was expected, what to do."""
    if spec.storage is None:
        return
    if spec.kind == "local":
        yield "engine.storage is set, and jobs on this machine need none. Remove it, or name a cluster in engine.kind."
    if spec.nodes > 1:
        yield (
            f"engine.nodes is {spec.nodes} with engine.storage: the parts of a job on several nodes share a folder. "
            "Take one node, or leave engine.storage out and put the run on a shared folder with --runs-dir."
        )
    yield from _of_url(spec.storage)


def _of_url(url: str) -> Iterator[str]:
    protocol, mark, rest = url.partition("://")
    if not mark or not rest.strip("/") or not url.isprintable() or " " in url:
        yield f"engine.storage is {url!r}, and a URL was expected, such as {EXAMPLE}."
        return
    try:
        parts = urlsplit(url)
        secret, more = "@" in parts.netloc, bool(parts.query or parts.fragment)
    except ValueError:
        yield f"engine.storage is {url!r}, which is no URL; expected one such as {EXAMPLE}."
        return
    if secret:
        yield (
            "engine.storage holds a user name or a password. Remove it: credentials are found on each machine by the "
            "library of the store, such as a role of the instance or ~/.aws/credentials."
        )
    elif more or "::" in url or re.search(r"[*\[\]]", rest):
        yield f"engine.storage is '{url}'; expected a plain URL without ?, #, * and ::, such as {EXAMPLE}."
    elif protocol in OWN:
        yield f"engine.storage is '{url}': {OWN[protocol]}."
    else:
        yield from _library(protocol)


def _library(protocol: str) -> Iterator[str]:
    try:
        from fsspec import available_protocols, get_filesystem_class
    except ImportError:
        yield "engine.storage needs the package fsspec. Install it: pip install 'postgrad[s3]'"
        return
    known = [name for name in available_protocols() if name not in OWN]
    if protocol not in known:
        yield f"engine.storage: unknown kind of store '{protocol}'.{near_miss(protocol, known)} Take one of fsspec's."
        return
    try:
        get_filesystem_class(protocol)
    except ImportError as missing:
        extra = EXTRAS.get(protocol)
        yield f"engine.storage: {missing}. " + (f"As: pip install 'postgrad[{extra}]'" if extra else "Install it.")
