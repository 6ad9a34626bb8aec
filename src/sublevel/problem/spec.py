"""A problem as plain values, for study files, manifests and worker processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from sublevel.strict import Strict


class DataSpec(Strict):
    """The data, and their number. ``mean`` and ``std`` normalise images, one number per channel (absent: those of
    the training examples). ``options`` are those of the source (such as a folder's ``size``).
    """

    name: str = "fashion-mnist-small"
    root: str | None = None
    validation: int | float = Field(default=0.1, ge=0)
    train_size: int | None = Field(default=None, ge=1)
    test_size: int | None = Field(default=None, ge=1)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    options: dict[str, Any] = Field(default_factory=dict)


class ModelSpec(Strict):
    """A registered network or an import path ``module:function``, with its options.

    ``prunable`` names the prunable weights, by parameter (with wildcards) or module class; absent: those of every
    convolution and linear layer.
    """

    name: str = "lenet-300-100"
    options: dict[str, Any] = Field(default_factory=dict)
    prunable: tuple[str, ...] | None = None
    version: str | None = None


class ProblemSpec(Strict):
    """A problem by names and numbers. ``stored`` is the digest of data passed as tensors.

    >>> spec = ProblemSpec(model={"name": "lenet-300-100"}, data={"train_size": 500})
    >>> ProblemSpec.of(spec.document()) == spec
    True
    """

    model: ModelSpec = ModelSpec()
    data: DataSpec = DataSpec()
    loss: str = "cross-entropy"
    loop: str | None = None
    stored: str | None = None
    device: str = "cpu"
    dtype: str = "float32"

    def document(self) -> dict[str, Any]:
        """The spec as JSON; `of` reads it."""
        return self.model_dump(mode="json")

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> ProblemSpec:
        """The spec of a document, also of the flat form that runs before version 0.2 wrote."""
        return cls.model_validate(_nested(document) if isinstance(document.get("model"), str) else dict(document))


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The flat form, in which data were either a name with a root or the digest of stored tensors."""
    source = flat["data"]
    data = {name: flat[name] for name in ("validation", "train_size", "test_size", "mean", "std")}
    named = {"name": source.get("name", "own"), "root": source.get("root"), "options": flat["data_options"]}
    model = {"name": flat["model"], **{name: flat[name] for name in ("options", "prunable", "version")}}
    rest = {name: flat[name] for name in ("loss", "loop", "device", "dtype")}
    return {"model": model, "data": data | named, "stored": source.get("object"), **rest}
