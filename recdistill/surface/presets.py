"""The factories that `auto` stands for: one of each character, as far as a catalogue is large enough for it."""

from __future__ import annotations

FEWEST = 1000  # items, below which an exact scan takes microseconds and nothing can be trained
PER_CELL = 39  # items that FAISS wants of each cell it trains


def presets(num_items: int, dim: int) -> tuple[str, ...]:
    """Return the factories to measure beside exact search, for `num_items` vectors of `dim` numbers.

    Half the memory, a quarter of it, a graph, and for catalogues that can train them a scan of short codes that is
    refined and an inverted file of about 2 sqrt(items) cells.
    """
    found = ["SQfp16", "SQ8", "HNSW32_SQ8"]
    if num_items < FEWEST:
        return tuple(found)
    cells = min(2.0 * num_items**0.5, num_items / PER_CELL)
    codes = f"PQ{dim // 2}x4fs" if dim % 2 == 0 else f"PQ{dim}x4fs"
    return (*found, f"{codes},Refine(SQ8)", f"IVF{1 << int(cells).bit_length() - 1},SQ8")
