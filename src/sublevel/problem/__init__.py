"""A problem: a network, its data and its loss, joined once and named for the store.

Everything the rest of the package needs from code of a user's own passes through here: what the network is called in
a cache key, whether a worker process can import it, and whether its output fits the data.
"""

from sublevel.problem.identity import importable, path
from sublevel.problem.problem import Problem

__all__ = ["Problem", "importable", "path"]
