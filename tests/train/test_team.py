"""A training by several processes is that of one at the same batches, where BatchNorm sees the whole of them."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import team_member
from tiny_runs import environment

CASES = {
    "sgd": {},
    "nesterov": {"nesterov": True},
    "adam": {"optimizer": "adam", "lr": 0.01},
    "shares": {"synchronised": False},
}


def trained(folder: Path, size: int) -> list[dict[str, dict[str, Tensor]]]:
    """Where each of so many processes ended, by case."""
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    said = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}

    def member(rank: int) -> None:
        command = [sys.executable, team_member.__file__, str(folder), json.dumps(CASES)]
        done = subprocess.run(
            command, env=environment(**said, RANK=str(rank)), capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr

    with ThreadPoolExecutor(size) as pool:
        list(pool.map(member, range(size)))
    return [{name: load_file(folder / f"{name}-{rank}.safetensors") for name in CASES} for rank in range(size)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Tensor]]:
    return trained(tmp_path_factory.mktemp("team") / "one", 1)[0]


@pytest.fixture(scope="module", params=[2, 3])
def team(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    return trained(tmp_path_factory.mktemp("team") / str(request.param), request.param)


@pytest.mark.parametrize("case", ["sgd", "nesterov", "adam"])
def test_several_are_as_one(alone: dict, team: list[dict], case: str) -> None:
    """Weights, running statistics and losses after 20 steps in float64, the last batch of an epoch six examples."""
    for name, expected in alone[case].items():
        torch.testing.assert_close(team[0][case][name], expected, rtol=1e-10, atol=1e-10)
    assert (alone[case]["theta"][::7] == 0).all()


@pytest.mark.parametrize("case", CASES)
def test_all_hold_the_same_bits(team: list[dict], case: str) -> None:
    for other in team[1:]:
        for name, tensor in team[0][case].items():
            assert torch.equal(tensor, other[case][name]), name


def test_statistics_of_shares_are_others(alone: dict, team: list[dict]) -> None:
    """They are those of fewer examples: another network, and no broken one."""
    mine, whole = team[0]["shares"], alone["shares"]
    assert not torch.allclose(mine["theta"], whole["theta"], rtol=1e-4)
    assert torch.isfinite(mine["theta"]).all()
    assert mine["losses"][-1] < mine["losses"][0]
    assert torch.equal(mine["buffer:na.num_batches_tracked"], whole["buffer:na.num_batches_tracked"])
