"""The studies that come with the package."""

MINUTES: dict[str, int | None] = {
    "anatomy": 9,
    "criteria": 3,
    "criteria-geometry": 9,
    "demo": 7,
    "error-landscape": 4,
    "geometry-demo": 11,
    "mask-transfer": 3,
    "mini": 24,
    "paper": None,
    "paper-vgg16": None,
    "rewind-sweep": 3,
    "volume-methods": 10,
}
"""Preset -> about how many minutes it takes on two cores of an AMD EPYC that do nothing else; None: it needs a GPU."""
