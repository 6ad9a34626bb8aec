"""The input requirements of convolutional networks."""

from __future__ import annotations

from sublevel.errors import ModelError


def image_shape(name: str, input_shape: tuple[int, ...], smallest: int) -> tuple[int, int, int]:
    """Return (channels, height, width), or refuse an input that is not an image or is too small."""
    if len(input_shape) != 3:
        raise ModelError(f"{name} takes images (channels, height, width); the data have shape {input_shape}")
    channels, height, width = input_shape
    if min(height, width) < smallest:
        raise ModelError(f"{name} takes images of at least {smallest} x {smallest}; the data have {height} x {width}")
    return channels, height, width
