"""Ports for servers of tests that are told theirs before they take it, or that leave it for a while and come back."""

from __future__ import annotations

import random
import socket
from contextlib import suppress

# Below those that systems hand out by themselves, where somebody else would get one that is free for a moment.
FIRST, LAST = 20_000, 32_000


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nobody listens on."""
    found: list[int] = []
    while len(found) < count:
        port = random.SystemRandom().randrange(FIRST, LAST)
        with suppress(OSError), socket.socket() as tried:
            tried.bind(("127.0.0.1", port))
            found += [port] if port not in found else []
    return found
