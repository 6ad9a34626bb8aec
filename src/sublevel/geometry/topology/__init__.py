"""The topology of sublevel sets: merge trees of solutions and of planes, and persistent homology of planes."""

from __future__ import annotations

from sublevel.geometry.topology.merge_tree import MergeTree, Pair, Segment, TreeNode, disconnectivity
from sublevel.geometry.topology.persistent_homology import Persistence, merge_tree, persistence

__all__ = ["MergeTree", "Pair", "Persistence", "Segment", "TreeNode", "disconnectivity", "merge_tree", "persistence"]
