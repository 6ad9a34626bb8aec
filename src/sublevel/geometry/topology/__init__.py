"""The topology of sublevel sets: which solutions share one, and at what height."""

from __future__ import annotations

from sublevel.geometry.topology.merge_tree import MergeTree, TreeNode, Pair, Segment, disconnectivity
from sublevel.geometry.topology.persistent_homology import Persistence, persistence

__all__ = ["MergeTree", "TreeNode", "Pair", "Persistence", "Segment", "disconnectivity", "persistence"]
