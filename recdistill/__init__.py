"""recdistill turns interaction logs into a small recommender that can serve.

The library is its stages (`recdistill.stages`), each a function from frozen inputs to one immutable artifact;
`pipelines.distill.path` calls them in order.
"""

__all__ = ["__version__"]
__version__ = "0.1.0"
