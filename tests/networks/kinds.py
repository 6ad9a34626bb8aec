"""Networks of every kind that people bring: a new kind is one row of `KINDS`.

A row is a factory (a module is importable by name, so that worker processes find it), its data, and what differs from
the usual: the loss, the prunable weights, the precision, how a dense Hessian is taken.
"""

from __future__ import annotations

import importlib.util
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

from networks import folders

N = 24


def _draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _classes(count: int, *shape: int) -> Tensor:
    return torch.randint(0, count, shape or (N,), generator=torch.Generator().manual_seed(9))


VECTORS, BITS = _draw(N, 4), _classes(2)
IMAGES = _draw(N, 2, 6, 6)
SERIES = _draw(N, 5, 4)
TOKENS = _classes(7, N, 5)


class Shaped(nn.Module):
    """What several rows share: an ``inner`` network and how its answer is made."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner


def perceptron():
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))


def batchnorm():
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 2))


def norms():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.Tanh(), nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
        nn.Flatten(), nn.LayerNorm(64), nn.Linear(64, 2),
    )  # fmt: skip


def depthwise():
    return nn.Sequential(nn.Conv2d(2, 4, 3, groups=2), nn.Tanh(), nn.Flatten(), nn.Linear(64, 2))


def transposed():
    return nn.Sequential(
        nn.ConvTranspose2d(2, 4, 3, groups=2, bias=False), nn.BatchNorm2d(4), nn.Tanh(), nn.AdaptiveAvgPool2d(2),
        nn.Flatten(), nn.Linear(16, 2),
    )  # fmt: skip


class Last(Shaped):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__(inner)
        self.out = nn.Linear(6, 2)

    def forward(self, x):
        return self.out(self.inner(x)[0][:, -1])


def lstm():
    return Last(nn.LSTM(4, 6, batch_first=True))


def gru():
    return Last(nn.GRU(4, 3, batch_first=True, bidirectional=True))


def rnn():
    return Last(nn.RNN(4, 6, batch_first=True))


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.out = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 2)

    def forward(self, x):
        return self.out(self.attention(x, x, x, need_weights=False)[0].mean(1))


class Encoder(Shaped):
    def __init__(self):
        super().__init__(nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, batch_first=True))
        self.out = nn.Linear(4, 2)

    def forward(self, x):
        return self.out(self.inner(x).mean(1))


class Words(nn.Module):
    """A language model with a tied head."""

    def __init__(self):
        super().__init__()
        self.embedding, self.mixing, self.head = nn.Embedding(7, 4), nn.Linear(4, 4), nn.Linear(4, 7, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        return self.head(torch.tanh(self.mixing(self.embedding(tokens))))


class Conv1D(nn.Module):
    """GPT-2's linear layer, [inputs, outputs]."""

    def __init__(self, nf, nx):
        super().__init__()
        self.nf = nf
        self.weight, self.bias = nn.Parameter(0.5 * torch.randn(nx, nf)), nn.Parameter(torch.zeros(nf))

    def forward(self, x):
        return x @ self.weight + self.bias


def gpt2():
    return nn.Sequential(Conv1D(6, 4), nn.GELU(), Conv1D(2, 6))


def weight_normed():
    return nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 6)), nn.Tanh(), nn.Linear(6, 2))


def old_weight_normed():
    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        return nn.Sequential(weight_norm(nn.Linear(4, 6)), nn.Tanh(), nn.Linear(6, 2))


def weight_normed_convolution():
    first = parametrizations.weight_norm(nn.Conv2d(2, 4, 3, groups=2))
    return nn.Sequential(first, nn.Tanh(), nn.Flatten(), nn.Linear(64, 2))


def spectral_normed():
    return nn.Sequential(parametrizations.spectral_norm(nn.Linear(4, 6)), nn.Tanh(), nn.Linear(6, 2))


def old_spectral_normed():
    return nn.Sequential(spectral_norm(nn.Linear(4, 6)), nn.Tanh(), nn.Linear(6, 2))


def orthogonal():
    return nn.Sequential(parametrizations.orthogonal(nn.Linear(4, 4)), nn.Tanh(), nn.Linear(4, 2))


def frozen():
    net = perceptron()
    net[0].requires_grad_(False)
    return net


class Unused(Shaped):
    def __init__(self):
        super().__init__(perceptron())
        self.aux = nn.Linear(4, 2)

    def forward(self, x):
        return self.inner(x)


class Auxiliary(Unused):
    """Two heads while training, as GoogLeNet has: a tuple then, and a tensor in evaluation mode."""

    def forward(self, x):
        return (self.inner(x), self.aux(x)) if self.training else self.inner(x)


class Output(NamedTuple):
    logits: Tensor
    hidden: Tensor


class Logits(Shaped):
    def __init__(self):
        super().__init__(perceptron())

    def forward(self, x):
        return Output(hidden=x, logits=self.inner(x))


class Mapping(Logits):
    def forward(self, x):
        return {"hidden": x, "logits": self.inner(x)}


class Writing(Logits):
    """It normalises its input in place, through a view too."""

    def forward(self, x):
        x -= 1.0
        x[:, 0].mul_(2.0)
        return self.inner(x)


class Table(Logits):
    def __init__(self):
        super().__init__()
        self.register_buffer("table", torch.arange(1.0, 5.0), persistent=False)

    def forward(self, x):
        return self.inner(x * self.table)


class Spectrum(Logits):
    """A complex buffer, as rotary embeddings have."""

    def __init__(self):
        super().__init__()
        self.register_buffer("turn", torch.polar(torch.ones(2), torch.tensor([0.3, 0.9])))

    def forward(self, x):
        turned = torch.view_as_complex(x.reshape(len(x), 2, 2)) * self.turn
        return self.inner(torch.view_as_real(turned).flatten(1).to(x.dtype))


class Named(nn.Module):
    """Its attributes have the names that wrappers add."""

    def __init__(self):
        super().__init__()
        self.module, self.model = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x):
        return self.model(torch.tanh(self.module(x)))


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.out = nn.Embedding(7, 3), nn.Linear(3 + 4, 2)

    def forward(self, tokens, numbers):
        return self.out(torch.cat([self.words(tokens).mean(1), numbers], dim=1))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.out = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x):
        h = torch.tanh(self.first(x))
        return self.out(h + torch.tanh(self.second(h)))


class Gated(nn.Module):
    """A forward pass that looks at its numbers, which no vmap takes."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x):
        return torch.cat([self.a(row[None]) if float(row[0]) > 0 else self.b(row[None]) for row in x])


def scalar():
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1))


def bilinear():
    return Pair()


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.both, self.out = nn.Bilinear(4, 4, 3), nn.Linear(3, 2)

    def forward(self, a, b):
        return self.out(self.both(a, b))


def double():
    return perceptron().double()


def bert():
    return folders.network("bert", "sequence-classification", num_labels=3)


def gpt2_words():
    return folders.network("gpt2", "causal-lm")


def gpt2_classes():
    return folders.network("gpt2", "sequence-classification", num_labels=3)


def llama():
    return folders.network("llama", "causal-lm")


def character_model():
    return example("char_lm").Transformer((5,), 7, dim=8, depth=1, heads=2)


@cache
def example(name: str) -> Any:
    """The module of an example."""
    path = Path(__file__).parents[2] / "examples" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"example_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class Wrapped(nn.Module):
    """A transformer in a class of the user's own."""

    def __init__(self):
        super().__init__()
        self.body = bert()

    def forward(self, ids, there):
        return self.body(input_ids=ids, attention_mask=there).logits


def entropy(z: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(z, y)


def of_tokens(z: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(z.flatten(0, 1), y.flatten())


def of_one(z: Tensor, y: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(z.squeeze(1), y.to(z.dtype))


@dataclass(frozen=True, eq=False)
class Kind:
    """A row: what the user has, and the loss by the user's own code."""

    name: str
    build: Callable[[], nn.Module]
    x: Any = VECTORS
    y: Tensor = BITS
    own: Callable[[Tensor, Tensor], Tensor] = entropy
    loss: Any = "cross-entropy"
    prunable: Any = None
    second: bool = True
    """Whether PyTorch's own second derivatives are right."""
    single: bool = False
    """Whether a layer computes in float32 at every precision, as Llama's RMSNorm does."""
    pretrained: tuple[str, str] | None = None
    """The kind and the task of a transformer in a folder: the problem's network is ``hf:FOLDER``."""

    @property
    def model(self) -> Any:
        """The network of the problem."""
        return self.build if self.pretrained is None else f"hf:{folders.folder(*self.pretrained)}"

    def __str__(self) -> str:
        return self.name


IDS = _classes(folders.VOCABULARY, N, folders.LENGTH)
THERE = (torch.arange(folders.LENGTH) < 2 + torch.arange(N)[:, None] % (folders.LENGTH - 1)).long()
NEXT = torch.where(THERE.roll(-1, 1) * (torch.arange(folders.LENGTH) < folders.LENGTH - 1) == 1, IDS.roll(-1, 1), -100)
TEXT = {"input_ids": IDS * THERE, "attention_mask": THERE}
PADDED = torch.where(_classes(3, N, 5) == 0, -100, TOKENS)
KINDS = [
    Kind("perceptron", perceptron),
    Kind("BatchNorm", batchnorm, loss=nn.CrossEntropyLoss()),
    Kind("other norms", norms, IMAGES),
    Kind("grouped convolution", depthwise, IMAGES),
    Kind("grouped transposed convolution", transposed, IMAGES),
    Kind("LSTM", lstm, SERIES, prunable="matrices"),
    Kind("two-way GRU", gru, SERIES, prunable=["default", "GRU"]),
    Kind("RNN", rnn, SERIES),
    Kind("attention", Attending, SERIES, prunable="matrices"),
    Kind("encoder layer", Encoder, SERIES, prunable="matrices"),
    Kind("tied language model", Words, TOKENS, TOKENS.roll(-1, 1), of_tokens),
    Kind("padded labels", Words, TOKENS, PADDED, of_tokens, loss=nn.CrossEntropyLoss()),
    Kind("GPT-2's Conv1D", gpt2, prunable="matrices"),
    Kind("weight_norm", weight_normed, prunable="matrices", second=False),
    Kind("old weight_norm", old_weight_normed, prunable="matrices", second=False),
    Kind("weight_norm of a grouped convolution", weight_normed_convolution, IMAGES, prunable="matrices", second=False),
    Kind("spectral_norm", spectral_normed, prunable="matrices"),
    Kind("old spectral_norm", old_spectral_normed, prunable="matrices"),
    Kind("orthogonal", orthogonal),
    Kind("frozen body", frozen),
    Kind("unused parameters", Unused),
    Kind("auxiliary head", Auxiliary),
    Kind("named tuple", Logits),
    Kind("dict output", Mapping),
    Kind("writes into its input", Writing),
    Kind("table", Table),
    Kind("complex buffer", Spectrum),
    Kind("names of wrappers", Named),
    Kind("inputs by name", Two, {"tokens": TOKENS, "numbers": VECTORS}),
    Kind("inputs in a row", bilinear, (VECTORS, VECTORS.flip(0)), prunable=["default", "Bilinear"]),
    Kind("residual", Residual),
    Kind("looks at its numbers", Gated),
    Kind("one logit", scalar, own=of_one, loss="binary-cross-entropy"),
    Kind("labels in a column", perceptron, y=BITS[:, None], own=lambda z, y: entropy(z, y.squeeze(1))),
    Kind("regression", scalar, y=_draw(N, seed=4), own=lambda z, y: F.mse_loss(z.squeeze(1), y), loss=nn.MSELoss()),
    Kind("multi-label", perceptron, y=_classes(2, N, 2).float(), own=F.binary_cross_entropy_with_logits,
         loss=nn.BCEWithLogitsLoss()),
    Kind("double", double),
    Kind("BERT", bert, TEXT, _classes(3), pretrained=("bert", "sequence-classification")),
    Kind("GPT-2", gpt2_words, TEXT, NEXT, of_tokens, prunable="matrices", pretrained=("gpt2", "causal-lm")),
    Kind("GPT-2 for classes", gpt2_classes, TEXT, _classes(3), prunable="matrices",
         pretrained=("gpt2", "sequence-classification")),
    Kind("Llama", llama, TEXT, NEXT, of_tokens, single=True, pretrained=("llama", "causal-lm")),
    Kind("character model", character_model, TOKENS, TOKENS.roll(-1, 1), of_tokens),
    Kind("BERT in a class of its user's", Wrapped, {"ids": TEXT["input_ids"], "there": THERE}, _classes(3)),
]  # fmt: skip
