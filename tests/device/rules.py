"""What CUDA's kernels do otherwise than the CPU's, by name of the operation; read in PyTorch's sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch


def _aten(names: str) -> frozenset[str]:
    return frozenset(f"aten::{name}" for name in names.split())


WAITS = _aten(
    "_local_scalar_dense nonzero masked_select unique_dim _unique2 unique_consecutive equal bincount histc item "
    "_linalg_eigh linalg_eig _linalg_svd linalg_lstsq repeat_interleave is_nonzero _linalg_check_errors"
)
"""A number goes to the host, or the size of the result depends on the data."""

UNORDERED = _aten(
    "cumsum put_ histc bincount median nll_loss2d_forward max_unpool2d _adaptive_avg_pool2d_backward "
    "_adaptive_avg_pool3d_backward adaptive_max_pool2d_backward avg_pool3d_backward fractional_max_pool2d_backward "
    "reflection_pad1d_backward reflection_pad2d_backward upsample_linear1d_backward upsample_bilinear2d_backward "
    "upsample_bicubic2d_backward upsample_trilinear3d_backward grid_sampler_2d_backward _ctc_loss_backward"
)
"""Sums in no fixed order for which PyTorch has no other kernel: `torch.use_deterministic_algorithms` warns of these on
CUDA for floating-point numbers, or refuses them."""

ORDERED_ON_REQUEST = _aten(
    "index_add index_add_ scatter_add scatter_add_ scatter_reduce scatter_reduce_ index_put_ _index_put_impl_ "
    "_unsafe_index_put gather_backward replication_pad1d_backward replication_pad2d_backward "
    "replication_pad3d_backward max_pool3d_with_indices_backward"
)
"""Sums that have a fixed order under `torch.use_deterministic_algorithms`."""

INDEXING = _aten("index index_put index_put_ _index_put_impl_ _unsafe_index")

SCALARS = _aten(
    "where masked_fill masked_fill_ fill_ lerp lerp_ pow add_ mul_ sub_ div_ result_type _foreach_mul _foreach_mul_ "
    "_foreach_div _foreach_div_ _foreach_add _foreach_add_ _fused_sgd_ _fused_adam_ _fused_adamw_"
)
"""They take a number that lies on the host, as pointwise operations do."""

FUSED = _aten("_fused_sgd_ _fused_adam_ _fused_adamw_")

CONVOLUTIONS = _aten("convolution convolution_backward cudnn_convolution")
PRODUCTS = CONVOLUTIONS | _aten("mm addmm bmm baddbmm")
"""What TF32 is for."""


def tf32(name: str) -> bool:
    """Whether CUDA would round the factors of this product to 10 bits now; ``none`` means yes to a convolution."""
    backends = torch.backends
    switch = backends.cudnn.conv if name in CONVOLUTIONS else backends.cuda.matmul  # type: ignore[attr-defined]
    return switch.fp32_precision in (("tf32", "none") if name in CONVOLUTIONS else ("tf32",))


def check_fused(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """RuntimeError for lists that differ in layout, and for a rate in another type than float32.

    The kernels (ATen/native/cuda/fused_*_utils) call ``check_fast_path_restrictions`` and ``lr.data_ptr<float>()``.
    """
    first, *others = [a for a in args if isinstance(a, (list, tuple)) and a]
    for other in others:
        for a, b in zip(first, other, strict=True):
            strides = [(m, n) for size, m, n in zip(a.shape, a.stride(), b.stride(), strict=True) if size != 1]
            if a.dtype != b.dtype or a.shape != b.shape or any(m != n for m, n in strides):
                raise RuntimeError(f"{name}: tensors of {a.dtype} {a.stride()} beside {b.dtype} {b.stride()}")
    rate = kwargs.get("lr")
    if isinstance(rate, torch.Tensor) and rate.dtype != torch.float32:
        raise RuntimeError(f"{name}: expected scalar type Float but found {rate.dtype}")
