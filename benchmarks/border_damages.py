"""Damages of the border campaign: to the bytes of any file, and to one value somewhere in a document."""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Callable
from typing import Any


def flip(content: bytes, chance: random.Random) -> bytes:
    """One or four other bits."""
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 4))):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def cut(content: bytes, chance: random.Random) -> bytes:
    """A beginning."""
    return content[: chance.randrange(len(content))]


def digit(content: bytes, chance: random.Random) -> bytes:
    """Another digit somewhere."""
    places = [place for place, byte in enumerate(content) if 48 <= byte < 58]
    place = chance.choice(places or [0])
    return content[:place] + b"%d" % ((content[place] + chance.randint(1, 9)) % 10) + content[place + 1 :]


def lines(content: bytes, chance: random.Random) -> bytes:
    """A line away, twice, or at another place."""
    parts = content.splitlines(keepends=True)
    line = parts.pop(chance.randrange(len(parts)))
    for _ in range(chance.randrange(3)):
        parts.insert(chance.randrange(len(parts) + 1), line)
    return b"".join(parts)


def words(content: bytes, chance: random.Random) -> bytes:
    """A word in place of another one, or of a value that no file should hold."""
    found = re.findall(rb"[\w.]+", content)
    strange = (b"null", b"-1", b"1e999", b"NaN", b"[]", b"{}", b"99999999999999999999", b'"\\ud800"', b"../../x", b"")
    old, new = chance.choice(found or [b""]), chance.choice((*strange, *found[:50]))
    return content.replace(old, new, chance.choice((1, -1)))


def relabel(content: bytes, chance: random.Random) -> bytes:
    """The name of an older or a newer format."""
    for name in (b"mixskd-model-", b"mixskd-checkpoint-", b"mixskd-summary-", b"mixskd-suite-"):
        if (at := content.find(name)) >= 0:
            at += len(name)
            return content[:at] + chance.choice(b"0123456789".decode()).encode() + flip(content[at + 1 :], chance)
    return flip(content, chance)


DAMAGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (flip, flip, cut, digit, lines, words, relabel)


def damaged(content: bytes, chance: random.Random) -> bytes:
    """``content`` with a damage, or as it is in one of twenty cases, where it must be accepted."""
    kind = chance.random()
    return content if kind < 0.05 else b"" if kind < 0.08 else chance.choice(DAMAGES)(content, chance)


STRANGE_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1.5, -0.0, 1e308, float("nan"), float("inf"), 2**63, -(2**63) - 1, 10**30, 10**400, "",
    "x", "\ud800", "\x1b[2J", "a\nb", "../../x", "/etc/passwd", "x" * 5000, "\u202e", "5", "nan", [], [[]], [None],
    {}, {"a": 1}, [1, 2, 3], [[[[[[[[1]]]]]]]], "timm/hf-hub:x/y", "(a{99999999})", "1:59:59",
)  # fmt: skip


def mutated(document: Any, chance: random.Random) -> Any:
    """``document`` with one value somewhere removed, doubled or replaced by a strange one."""
    document = copy.deepcopy(document)
    places = list(_places(document))
    parent, key = chance.choice(places)
    kind = chance.random()
    if kind < 0.15:
        del parent[key]
    elif kind < 0.25 and isinstance(parent, list):
        parent.append(parent[key])
    elif kind < 0.35 and isinstance(parent, dict):
        parent[chance.choice(("x", "", "\ud800", "a\x00b", "y" * 400))] = parent[key]
    else:
        parent[key] = chance.choice(STRANGE_VALUES)
    return document


def _places(value: Any) -> Any:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield value, key
        yield from _places(inner)
