"""Planes and lines through weight space: frames, scans of them, and widths at a finite height.

``plane_through`` three points, ``random_plane`` along filter-normalised directions, ``eigen_plane`` along two vectors;
``scan`` evaluates a grid, ``adaptive_scan`` refines one where the loss changes. ``profile`` and ``width`` follow one
direction.
"""

from __future__ import annotations

from sublevel.geometry.planes.frames import Frame, Projection, eigen_plane, plane_through, random_plane
from sublevel.geometry.planes.lines import Line, Width, profile, random_direction, width
from sublevel.geometry.planes.quadtree import Mesh, adaptive_scan
from sublevel.geometry.planes.scans import Plane, scan
from sublevel.geometry.planes.seams import Seam
from sublevel.numerics import ieee_functions

__all__ = [
    "Frame", "Line", "Mesh", "Plane", "Projection", "Seam", "Width", "adaptive_scan", "eigen_plane", "plane_through",
    "profile", "random_direction", "random_plane", "scan", "width",
]  # fmt: skip

ieee_functions(globals())
