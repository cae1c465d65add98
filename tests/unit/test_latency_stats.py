"""What service times come to."""

from __future__ import annotations

import numpy as np

from recdistill.latency_stats import summarise


def test_a_histogram_counts_every_query_once_between_edges_that_rise_by_one_factor() -> None:
    times = np.random.default_rng(0).lognormal(-9, 0.5, (5, 200))
    told = summarise(times)["histogram"]
    edges, counts = np.array(told["edges_ms"]), np.array(told["counts"])
    assert counts.sum() == times.size
    np.testing.assert_allclose(edges[[0, -1]], [times.min() * 1e3, times.max() * 1e3])
    np.testing.assert_allclose(edges[1:] / edges[:-1], edges[1] / edges[0])
    middle = (edges[7] < times * 1e3) & (times * 1e3 < edges[8])
    assert counts[7] == middle.sum() > 0
    assert sum(summarise(np.full(9, 1e-4))["histogram"]["counts"]) == 9
    assert sum(summarise(np.zeros(3))["histogram"]["counts"]) == 3
