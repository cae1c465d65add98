"""The factories that `auto` stands for: one of each character, as far as a catalogue is large enough for it."""

from __future__ import annotations

from recdistill.ann_auto import cells

FEWEST = 1000  # items, below which an exact scan takes microseconds and nothing can be trained
MOST_LINKED = 500_000  # items, above which one thread builds a graph for longer than all the others take


def presets(num_items: int, dim: int) -> tuple[str, ...]:
    """Return the factories to measure beside exact search, for `num_items` vectors of `dim` numbers.

    Half the memory, a quarter of it, a graph, and for catalogues that can train them scans of 4 bits and of 2 bits a
    number that are refined, and an inverted file of about 2 sqrt(items) cells.
    """
    found = ["SQfp16", "SQ8", *(["HNSW32_SQ8"] if num_items <= MOST_LINKED else [])]
    if num_items < FEWEST:
        return tuple(found)
    halves = [f"PQ{dim // 2}x4fs,Refine(SQ8)"] if dim % 2 == 0 else []
    return (*found, f"PQ{dim}x4fs,Refine(SQ8)", *halves, f"IVF{cells(num_items)},SQ8")
