"""Inputs that go wrong: trees of JSON and bytes, changed at random by a generator with a seed."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Sequence
from typing import Any

WORDS = [
    *("", " ", "null", "true", "nan", "-", ".", "..", "/", "a\nb", "a\tb", "\x1b[2J", "\u202eabc", "e\u0301", "\u00e9"),
    *("../../../etc/passwd", "/etc/passwd", "<script>alert(1)</script>", "'; drop table x; --", "{{7*7}}", "%s%n"),
    *("x" * 5000, "9223372036854775808", "1e400", "0x", "1_000", "2026-13-45", "2026-02-30T25:61:61Z", "\ufeff", "*"),
    *("kind", "path", "mf", "ranker", "external", "given", "auto", "all", "adam", "champion", "yesterday"),
]
UNFIT = ["a\0b", "\0", "\ud800", "\udfff"]  # no configuration can hold these: YAML's reader refuses them
NUMBERS = [
    *(0, -1, 1, 2, 3, 7, 64, 255, 256, 65_535, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, -(2**63)),
    *(0.0, -0.0, 0.5, 1.0, 1.5, 1e-300, 1e300, 5e-324, -1.0, 0.9999999999999999),
]
HUGE = [2**63, -(2**63) - 1, 10**30, 10**400]
ODD = [float("nan"), float("inf"), float("-inf")]
TOKENS = [
    *(b"&a ", b"*a", b"!!python/object/apply:os.system ", b"!!int ", b"!!binary ", b"<<: ", b"? ", b"- ", b": ", b"#"),
    *(
        b"---\n",
        b"...\n",
        b"%YAML 9.9\n",
        b"|\n",
        b">\n",
        b"[",
        b"]",
        b"{",
        b"}",
        b",",
        b'"',
        b"'",
        b"\t",
        b"\n",
        b"\r",
    ),
    *(b"\0", b"\xff", b"\xef\xbb\xbf", b"\xc3\x28", b"\xed\xa0\x80", b"NaN", b"Infinity", b"-Infinity", b"1e999"),
    *(b"99999999999999999999", b"0x" + b"f" * 5000, b"null", b"true", b"[" * 2000, b'{"a":' * 1200, b"\\u0000"),
    *(b"\\ud800", b"=", b".", b"..", b"/", b"../", b"~", b"{}", b"[]", b"kind: ", b"%", b"@", b"`"),
]

Walk = list[tuple[Any, Any]]


def places(value: Any) -> Walk:
    """Return (container, key) of everything in a tree."""
    found: Walk = []
    stack = [value]
    while stack:
        at = stack.pop()
        keys = list(at) if isinstance(at, dict) else range(len(at)) if isinstance(at, list) else ()
        for key in keys:
            found.append((at, key))
            stack.append(at[key])
    return found


def odd(rng: random.Random, unfit: bool) -> Any:
    """Return a value that nobody expects; with `unfit` one that no configuration can hold, too."""
    pools: list[Sequence[Any]] = [WORDS, NUMBERS, NUMBERS, [None, True, False, [], {}, [[]], [None], {"": None}]]
    if unfit:
        pools += [UNFIT, HUGE, ODD]
    return copy.deepcopy(rng.choice(rng.choice(pools)))


def tree(rng: random.Random, value: Any, others: Sequence[Any] = (), *, unfit: bool = False) -> Any:
    """Return a tree of JSON like `value` with one to four changes."""
    root = {"": copy.deepcopy(value)}
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        found = places(root)
        holder, key = rng.choice(found)
        act = rng.randrange(9)
        if act <= 3:
            holder[key] = odd(rng, unfit)
        elif act == 4 and holder is not root:
            del holder[key]
        elif act == 5:
            source = rng.choice(others) if others and rng.random() < 0.5 else root[""]
            taken = places({"": source})
            part, name = rng.choice(taken)
            holder[key] = copy.deepcopy(part[name])
        elif act == 6 and isinstance(holder, dict) and holder is not root:
            holder[str(odd(rng, unfit))[:40] if rng.random() < 0.5 else f"{key}x"] = holder.pop(key)
        elif act == 7 and isinstance(holder[key], list):
            holder[key] = holder[key] * rng.choice((2, 3, 50))
        else:
            for _ in range(rng.choice((1, 1, 2, 40))):
                holder[key] = [holder[key]] if rng.random() < 0.5 else {str(rng.choice(WORDS))[:20]: holder[key]}
    return root[""]


def raw(rng: random.Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """Return bytes like `data` with one to four changes."""
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        at = rng.randrange(len(made) + 1)
        end = min(len(made), at + rng.choice((1, 1, 2, 4, 16, 200)))
        act = rng.randrange(8)
        if act == 0 and made:
            made[min(at, len(made) - 1)] ^= 1 << rng.randrange(8)
        elif act == 1:
            del made[at:end]
        elif act <= 3:
            made[at:at] = rng.choice(TOKENS)
        elif act == 4:
            made[at:end] = rng.choice(TOKENS)
        elif act == 5:
            made[at:at] = made[at:end] * rng.choice((1, 2, 30))
        elif act == 6:
            source = rng.choice(others) if others else bytes(made)
            start = rng.randrange(len(source) + 1)
            made[at:at] = source[start : start + rng.choice((4, 40, 400))]
        else:
            made[at:end] = bytes(rng.randrange(256) for _ in range(end - at))
    return bytes(made)


def as_json(value: Any) -> bytes:
    """Return JSON as anybody may write it: NaN, lone surrogates and all."""
    return json.dumps(value, ensure_ascii=True).encode()


Maker = Callable[[random.Random, Sequence[bytes]], bytes]


def of_trees(*, unfit: bool, broken: float = 0.15) -> Maker:
    """Return a maker of JSON from seeds that are JSON; `broken` is the share that may be no JSON at all."""

    def make(rng: random.Random, pool: Sequence[bytes]) -> bytes:
        seed = rng.choice(pool)
        if rng.random() < broken:
            return raw(rng, seed, pool[:8])
        try:
            value, others = json.loads(seed), [json.loads(rng.choice(pool))]
        except (ValueError, RecursionError):
            return raw(rng, seed, pool[:8])
        try:
            return as_json(tree(rng, value, others, unfit=unfit))
        except RecursionError:
            return raw(rng, seed, pool[:8])

    return make


def of_bytes(rng: random.Random, pool: Sequence[bytes]) -> bytes:
    """Make bytes from seeds that are any."""
    return raw(rng, rng.choice(pool), pool[:8])
