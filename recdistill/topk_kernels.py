"""One pass over a tile of scores: what may be of a row's best k is kept, the rest is summed as exponentials.

A candidate is one 64-bit key: the score, as an integer that sorts like it, above the complement of its column. So keys
sort by score, equal scores by lower column, and no two are equal. It is one file because the compiler's cache on disk
notices only when a function's own file changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numba
import numpy as np

if TYPE_CHECKING:
    from recdistill.topk import Array, Rows

CHUNK = 1024  # columns at a time: 4 kB of scores and as much beside it stay in the first-level cache
LANES = 128  # every LANES-th column of a chunk shares a maximum, to find the few that matter without looking at all
LOWEST = np.float32(np.finfo(np.float32).min)  # masked columns are -inf, which lies below
LOG2E = np.float32(1.4426950408889634)
# Minimax polynomial of 2**f, -1/2 <= f <= 1/2, in float32: relative error below 2e-7.
C1, C2, C3, C4, C5 = map(np.float32, (0.69314700, 0.24022242, 0.055507340, 0.0096715130, 0.0013264720))
SIGN, COLUMN, EVERYTHING = np.uint32(2**31), np.uint64(2**32 - 1), np.uint64(2**64 - 1)
# A sum may be taken in any order, or it could not be vectorised; nothing may be assumed of infinities.
LOOSE = {"reassoc", "contract", "nsz"}


def _compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Return numba's decorator; its result is kept on disk where a directory for that can be found."""

    def wrap(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(cache=True, nogil=True, **options)(function)
        except RuntimeError:  # neither the package nor the home directory can be written
            return numba.njit(nogil=True, **options)(function)

    return wrap


@_compiled()
def ranked(bits: int) -> np.int32:
    """Return the bits of a float32 as an int32 that sorts like it, or back: maxima of integers are vectorised."""
    return np.int32(bits ^ np.int32(np.int32(bits >> np.int32(31)) & np.int32(0x7FFFFFFF)))


@_compiled()
def pack(score: float, column: int) -> np.uint64:
    """Return the key of a score in a column; -0 counts as 0."""
    rank = np.uint32(ranked(np.float32(score + np.float32(0)).view(np.int32)))
    return (np.uint64(np.uint32(rank ^ SIGN)) << np.uint64(32)) | (COLUMN - np.uint64(column))


@_compiled()
def score_of(key: int) -> np.float32:
    """Return the score of a key."""
    return np.int32(ranked(np.int32(np.uint32(key >> np.uint64(32)) ^ SIGN))).view(np.float32)


@_compiled()
def column_of(key: int) -> np.int64:
    """Return the column of a key."""
    return np.int64(COLUMN - (key & COLUMN))


@_compiled()
def raise_maxima(x: Array, lanes: Array) -> np.float32:
    """Raise each lane's `ranked` maximum by the chunk `x`, and return the largest of all."""
    bits, width = x.view(np.int32), len(lanes)
    for i in range(CHUNK // width):
        part = bits[i * width : (i + 1) * width]
        for j in range(width):
            lanes[j] = max(lanes[j], ranked(part[j]))
    high = lanes[0]
    for j in range(width):
        high = max(high, lanes[j])
    return np.int32(ranked(high)).view(np.float32)


@_compiled(fastmath=LOOSE)
def exponentials(x: Array, peak: float) -> np.float32:
    """Return the sum of exp(x - peak) over a chunk; terms below 2**-126 are 0, and so are those of -inf."""
    total = np.float32(0)
    for j in range(CHUNK):
        y = max((x[j] - peak) * LOG2E, np.float32(-127))
        n = np.rint(y)
        f = y - n
        p = ((((C5 * f + C4) * f + C3) * f + C2) * f + C1) * f + np.float32(1)
        total += p * np.int32(np.int32(np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)
    return total


@_compiled()
def add(x: Array, high: float, r: int, rows: Rows) -> None:
    """Add a chunk, whose largest is `high`, to what row `r` has summed."""
    if high >= LOWEST:
        if high > rows.peak[r]:
            rows.total[r] *= np.exp(np.float64(rows.peak[r]) - np.float64(high))
            rows.peak[r] = high
        rows.total[r] += exponentials(x, rows.peak[r])


@_compiled()
def partition(keys: Array, n: int, k: int) -> np.uint64:
    """Put the k largest of keys[:n] first, in any order, and return the least of them.

    Which side a key falls on is added, not branched on: no processor can guess it.
    """
    low, high = 0, n - 1
    while low < high:
        a, b, c = keys[low], keys[(low + high) >> 1], keys[high]
        pivot = max(min(a, b), min(max(a, b), c))
        split, least = low, low
        for i in range(low, high + 1):
            key = keys[i]
            keys[i], keys[split] = keys[split], key
            least = split if key == pivot else least
            split += np.int64(key >= pivot)
        # keys[low:split] >= pivot, of which one equals it: it goes last, where it belongs.
        keys[least], keys[split - 1] = keys[split - 1], pivot
        if k == split:
            break
        low, high = (low, split - 2) if k < split else (split, high)
    return keys[k - 1]


@_compiled()
def limit_below(score: float, error: float, relative: float) -> np.float32:
    """Return the least score a tile can show for an item of the true best k, if k items show `score` or more.

    A shown score s' and the true s differ by at most error + relative |s'|. So the true kth best is no less than
    y = score - error - relative |score|, and what is no less than y shows no less than (y - error) / (1 +- relative).
    """
    kth = np.float64(max(score, LOWEST))  # -inf: fewer than k items so far
    y = kth - 2 * error - relative * abs(kth)
    y /= 1 + relative if y >= 0 else 1 - relative
    return max(np.nextafter(np.float32(y), np.float32(-np.inf)), LOWEST)


@_compiled()
def drop(r: int, rows: Rows, first: int, n: int, floor: int, x: Array) -> int:
    """Add up those of the candidates [first, n) of row `r` whose key is below `floor`; return how many are left."""
    keys = rows.keys[r]
    kept, dropped = first, 0
    for i in range(first, n):
        if keys[i] >= floor:
            keys[kept] = keys[i]
            kept += 1
        else:
            x[dropped] = score_of(keys[i])
            dropped += 1
        if dropped == CHUNK or (dropped and i == n - 1):
            x[dropped:] = -np.inf
            add(x, np.max(x[:dropped]), r, rows)
            dropped = 0
    return kept


@_compiled()
def compact(r: int, rows: Rows, n: int, k: int, relative: float, x: Array) -> int:
    """Raise the limit of row `r` to what its `n` candidates allow; return how many still reach it."""
    rows.limit[r] = limit_below(score_of(partition(rows.keys[r], n, k)), rows.error[r], relative)
    return drop(r, rows, k, n, pack(rows.limit[r], COLUMN), x)


@_compiled()
def widen(scores: Array, bf16: bool, x: Array) -> None:
    """Write a piece of a tile, float32 or the bits of bfloat16, into the chunk `x`; what is over is -inf."""
    for j in range(len(scores)):
        wide = np.uint32(np.uint32(scores[j]) << np.uint32(16)).view(np.float32)
        x[j] = wide if bf16 else np.float32(scores[j])
    x[len(scores) :] = -np.inf


@_compiled()
def first_limit(r: int, rows: Rows, scores: Array, k: int, relative: float, bf16: bool, x: Array) -> np.float32:
    """Return a limit from the first tile: its columns in groups, k of which have the kth largest maximum or more."""
    groups = 256 if k <= 128 else CHUNK
    if 2 * k > groups or groups > rows.keys.shape[1]:
        return LOWEST
    best = np.full(groups, -2147483648, np.int32)
    for a in range(0, len(scores), CHUNK):
        widen(scores[a : min(a + CHUNK, len(scores))], bf16, x)
        raise_maxima(x, best)
    for j in range(groups):
        rows.keys[r, j] = pack(np.int32(ranked(best[j])).view(np.float32), j)
    return limit_below(score_of(partition(rows.keys[r], groups, k)), rows.error[r], relative)


@_compiled()
def take(
    r: int,
    rows: Rows,
    n: int,
    k: int,
    relative: float,
    column: int,
    x: Array,
    lanes: Array,
    places: Array,
    spare: Array,
) -> int:
    """Move what reaches the limit from the chunk `x` to the candidates of row `r`; return how many it has, or -1.

    Places are written always and counted where they matter: a branch would be guessed wrong at each that does.
    """
    cap, least = rows.keys.shape[1], ranked(np.float32(rows.limit[r]).view(np.int32))
    hits = np.int64(0)
    for j in range(LANES):
        places[hits] = j
        hits += np.int64(lanes[j] >= least)
    found = hits
    for h in range(hits):
        for i in range(places[h], CHUNK, LANES):
            places[found] = i
            found += np.int64(x[i] >= rows.limit[r])
    for i in places[hits:found]:
        if x[i] >= rows.limit[r]:  # it may have risen
            rows.keys[r, n] = pack(x[i], column + i)
            x[i] = -np.inf
            n += 1
            if n == cap:
                n = compact(r, rows, n, k, relative, spare)
                if n > cap - cap // 8:
                    return -1
    return n


@_compiled()
def scan(tile: Array, column: int, rows: Rows, k: int, relative: float) -> None:
    """Take the scores of columns [column, column + width) into the state of their rows; the first is column 0.

    tile [n,width] float32, or uint16 that hold bfloat16; masked scores are overwritten.
    """
    width, bf16 = tile.shape[1], tile.itemsize == 2
    x, lanes, spare = np.empty(CHUNK, np.float32), np.empty(LANES, np.int32), np.empty(CHUNK, np.float32)
    places = np.empty(LANES + CHUNK + 1, np.int64)
    for r in range(len(tile)):
        scores, n = tile[r], rows.count[r]
        while rows.at[r] < rows.end[r] and rows.masked[rows.at[r]] < column + width:
            scores[rows.masked[rows.at[r]] - column] = 0xFF80 if bf16 else -np.inf
            rows.at[r] += 1
        if n < 0:
            continue
        if column == 0:
            rows.limit[r] = first_limit(r, rows, scores, k, relative, bf16, x)
        for a in range(0, width, CHUNK):
            widen(scores[a : min(a + CHUNK, width)], bf16, x)
            lanes[:] = -2147483648
            high = raise_maxima(x, lanes)
            if high >= rows.limit[r]:
                n = take(r, rows, n, k, relative, column + a, x, lanes, places, spare)
                if n < 0:
                    break
                lanes[:] = -2147483648
                high = raise_maxima(x, lanes)
            add(x, high, r, rows)
        rows.count[r] = n


@_compiled(fastmath={"reassoc", "contract"})
def rescore(r: int, rows: Rows, n: int, relative: float, user: Array, items: Array) -> bool:
    """Give the candidates of row `r` their true scores; return whether all were within the error bound."""
    held = True
    for i in range(n):
        column, shown = column_of(rows.keys[r, i]), np.float64(score_of(rows.keys[r, i]))
        item, score = items[column], 0.0
        for d in range(len(user)):
            score += user[d] * np.float64(item[d])
        held &= abs(shown - np.float32(score)) <= rows.error[r] + relative * abs(shown)
        rows.keys[r, i] = pack(np.float32(score), column)
    return held


@_compiled()
def finish(users: Array, items: Array, rows: Rows, k: int, relative: float, lists: tuple[Array, Array, Array]) -> None:
    """Write the best k of each row, best first, into `lists`: scores and columns [n,k], and all others' logsumexp [n].

    users [n,D] f32, items [I,D] f32. A row that could not be finished has a count of -1 afterwards.
    """
    scores, columns, residual = lists
    x = np.empty(CHUNK, np.float32)
    for r in range(len(users)):
        n = rows.count[r]
        if n > k:
            n = compact(r, rows, n, k, relative, x)
        if n < 0 or not rescore(r, rows, n, relative, users[r].astype(np.float64), items):
            rows.count[r] = -1
            continue
        if n > k:
            partition(rows.keys[r], n, k)
            n = drop(r, rows, k, n, EVERYTHING, x)
        best = rows.keys[r, :n]
        best.sort()
        for i in range(n):
            scores[r, i], columns[r, i] = score_of(best[n - 1 - i]), column_of(best[n - 1 - i])
        if rows.total[r] > 0:
            residual[r] = rows.peak[r] + np.log(rows.total[r])
