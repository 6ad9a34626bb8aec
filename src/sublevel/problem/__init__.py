"""A problem: a network, its data and its loss.

This package is the interface to the user's code: it fingerprints the network for cell keys, checks whether a worker
process can import it, and checks whether its output fits the data.
"""

from sublevel.problem.identity import importable, path
from sublevel.problem.problem import Problem

__all__ = ["Problem", "importable", "path"]
