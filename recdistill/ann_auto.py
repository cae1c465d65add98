"""What `auto` stands for: by catalogue size, and by whether a student's vectors lie in clusters.

Cells pay where a few of them hold most of the answer. On Gowalla's 40,981 items (cosine, 64 numbers, one thread) the
distilled student of configs/gowalla-serving.yaml finds .98 of its best 100 in 16 of 256 cells, in half the time of any
scan; other trained vectors of the same log find .93 in half of theirs, and a scan of 4 bits a number, of which a few
times k are scored again from 8 bits, is then 2.2 times as fast as the exact one at .985. A graph took 4 to 6 times the
bytes of either, and the time of one of them or more. So cells are tried first, and kept where they read little.
Few items are scanned in less time than any of it saves; beyond two million nothing was measured.
"""

from __future__ import annotations

SCANNED = 5_000  # items, up to which there is no more than a scan of half the memory
TRIED = 2_000_000
MANY = 20_000_000
PER_CELL = 39  # items that FAISS wants of each cell it trains
CELLS_PAY = 1 / 8  # share of the codes, up to which reading cells is faster than scanning codes of half their bits


def factories(num_items: int, dim: int) -> tuple[str, ...]:
    """Return the factories to try for `num_items` vectors of `dim` numbers; each but the last only if its cells pay."""
    if num_items <= SCANNED:
        return ("SQfp16",)
    if num_items <= TRIED:
        return (f"IVF{cells(num_items)},SQ8", f"PQ{dim}x4fs,Refine(SQ8)")
    return ("IVF65536_HNSW32,SQ8",) if num_items <= MANY else ("IVF262144_HNSW32,SQ8",)


def cells(num_items: int) -> int:
    """Return how many cells an inverted file of so many items has: a power of two, about 2 sqrt(items)."""
    return 1 << int(min(2.0 * num_items**0.5, num_items / PER_CELL)).bit_length() - 1
