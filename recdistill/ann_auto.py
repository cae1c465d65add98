"""What `auto` stands for: by catalogue size, and by whether a student's vectors lie in clusters.

Cells pay where a few of them hold most of the answer, which depends on the student: docs/latency.md has a trained one
that finds .98 of its best 100 in 16 of 256 cells, in half the time of the fastest scan, and `make bench` has made-up
vectors of which an eighth of the cells is not enough. So cells are tried first, and kept where they read little; else
4 bits a number are scanned, of which a few times k are scored again from 8 bits. A graph takes 3.5 times the bytes of
either. Few items are scanned in less time than any of it saves; beyond two million nothing was measured.
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
