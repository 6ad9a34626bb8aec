"""Where a problem's data come from: a named source, a function of the user's, or tensors given in Python."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sublevel import data as datasets
from sublevel.data import Dataset, Splits, own
from sublevel.data.sources import IGNORED
from sublevel.errors import DataError, unknown
from sublevel.models import pretrained
from sublevel.own_code import contained
from sublevel.problem import identity


def read(
    name: str,
    root: str | Path | None,
    options: Mapping[str, Any],
    given: tuple[Any, Any] | None,
    *,
    dtype: torch.dtype,
    bits: bool = False,
    causal: bool = False,
) -> Dataset:
    """The data of a source: ``given`` in Python, returned by the function ``module:function``, or of a named source.

    ``bits`` makes two classes of real labels that are all 0 or 1, ``causal`` shifts labels that equal the tokens.
    """
    classes = None
    if given is None and ":" in name:
        given = _returned(name, root, options)
    elif given is not None:
        classes = options.get("classes")
        for option in options.keys() - {"classes", "ignored"}:
            raise unknown("option of own data:", option, ["classes", "ignored"], f"data_options.{option}")
    if given is None:
        found = datasets.load(name, root=root, **options)
    else:
        found = own.dataset(*given, dtype, options.get("ignored", IGNORED), classes)
        found = own.of_bits(found) if bits else found
    return own.shifted(found) if causal else found


def _returned(name: str, root: str | Path | None, options: Mapping[str, Any]) -> tuple[Any, Any]:
    """The training and the test data that a function of the user's returns."""
    arguments = {key: value for key, value in options.items() if key != "ignored"}
    arguments |= {} if root is None else {"root": str(root)}
    try:
        function = identity.function(name)
        with contained():
            found = function(**arguments)
    except Exception as error:  # code of the user
        raise DataError(f"data {name!r}: {str(error).removeprefix('model ')}") from error
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise DataError(
            f"data {name!r} gives {type(found).__name__}; expected the pair (train, test), each as Problem takes it"
        )
    return found[0], found[1]


def check_tokens(module: nn.Module, splits: Splits) -> None:
    """Refuse tokens outside the vocabulary of a pretrained transformer, where the examples are in memory."""
    for part in splits.parts.values():
        if len(part) and isinstance(part.x, Tensor):
            layout = splits.layout
            columns = dict(zip(layout.names, layout.unpack(part.x), strict=False)) if layout else {"": part.x}
            pretrained.check_tokens(module, columns.get("input_ids", columns.get("")))
