"""The curvature of a layer or a block is the diagonal block of the dense matrix."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import sublevel as sl
from sublevel.errors import ModelError

F64 = torch.float64


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 3)) for _ in range(2)
        )
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


def field(policy: str = "stored"):
    torch.manual_seed(0)
    net = Net().double()
    x, y = torch.randn(20, 3, dtype=F64), torch.arange(20) % 2
    net(x)
    found = sl.EmpiricalRisk(sl.Space.of(net), net, x, y, batch_size=7, policy=policy)
    return found, found.space.point(net)


@pytest.mark.parametrize("policy", ["stored", "recomputed"])
@pytest.mark.parametrize("names", ["blocks.0.*", "head.weight", ["blocks.1.*.weight", "head.bias"]])
@pytest.mark.parametrize("operator", [sl.curvature.hessian, sl.curvature.ggn])
def test_a_block_of_the_dense_matrix(policy: str, names, operator):
    whole, at = field(policy)
    part, inside = whole.restricted(names, at)
    mask = whole.space.block(names)
    assert part.dim == int(mask.sum()) < whole.dim
    assert part.loss(inside) == pytest.approx(whole.loss(at), rel=1e-14)
    dense = operator(whole, at).matrix()[mask][:, mask]
    torch.testing.assert_close(
        torch.from_numpy(operator(part, inside).matrix()), torch.from_numpy(dense), rtol=1e-10, atol=1e-12
    )
    masked = operator(whole, at, mask).matrix()
    torch.testing.assert_close(torch.from_numpy(masked), torch.from_numpy(dense), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(part.grad(inside), whole.grad(at)[mask], rtol=1e-12, atol=1e-14)


def test_eigenvalues_of_a_block_and_a_name_without_a_match():
    whole, at = field()
    found = sl.curvature.top_eigenvalues(*whole.restricted("blocks.0.*", at), k=3)
    mask = whole.space.block("blocks.0.*")
    dense = torch.from_numpy(sl.curvature.hessian(whole, at).matrix()[mask][:, mask])
    torch.testing.assert_close(found.values, torch.linalg.eigvalsh(dense).flip(0)[:3], rtol=1e-7, atol=1e-9)
    with pytest.raises(
        ModelError, match=r"block 'blocks.7.\*' matches no trainable parameter; they are blocks.0.0.weight"
    ):
        whole.restricted("blocks.7.*", at)


def test_a_study_measures_blocks(tmp_path):
    x, y = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 2
    p = sl.Problem(Net, train=(x, y), test=(x, y), validation=0)
    study = sl.Study(
        p, name="b", out=tmp_path, levels=1, rewind="1it", seeds=1, branches=["imp"],
        train={"epochs": 1, "batch_size": 20},
        geometry={"spectra": {"k": 2, "spaces": ["all"], "blocks": ["blocks.0.*", "head.*"],
                              "operators": ["hessian", "ggn"]}},
    )  # fmt: skip
    result = study.run(jobs=1, listener=lambda event: None, figures=False, report=False)
    table = result.tables["curvature"]
    assert set(table["space"]) == {"all", "block blocks.0.*", "block head.*"}
    end = result.point("imp", 1, seed=0)
    whole = p.field("train")
    own = sl.curvature.top_eigenvalues(*whole.restricted("head.*", end), k=2).values[0]
    row = table.query("space == 'block head.*' and operator == 'hessian' and level == 1")
    assert float(row["largest"].iloc[0]) == pytest.approx(float(own), rel=1e-3)
