"""recdistill turns interaction logs into a small recommender that can serve."""

__version__ = "0.1.0"
