"""Shapes in annotations: ``Float[Tensor, "D"]``, checked by the tests, plain ``Tensor`` where jaxtyping is absent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int, UInt8
else:
    try:
        from jaxtyping import Bool, Float, Int, UInt8
    except ImportError:

        class _Plain:
            def __class_getitem__(cls, item: object) -> object:
                return item[0]

        Bool = Float = Int = UInt8 = _Plain

__all__ = ["Bool", "Float", "Int", "Tensor", "UInt8"]
