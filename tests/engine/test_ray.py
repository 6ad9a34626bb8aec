"""Cells on Ray: real clusters of simulated nodes on this machine, one of which is killed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tiny_runs
from sublevel.engine import executors
from sublevel.errors import ConfigError
from tiny_runs import Running, cli, environment, paused, tables, until

pytest.importorskip("ray", reason="Ray is not installed (pip install 'sublevel[ray]')")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::Warning")]

RUN = ("run", "small.toml", "--set", "levels=1", "--set", 'branches=["imp"]')


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_runs.furnish(tmp_path_factory.mktemp("ray") / "workshop")


@pytest.fixture(scope="module")
def cluster(shop: Path) -> Iterator[Any]:
    """A head that runs no cells and two nodes with a CPU each, whose processes stand still where the driver's do."""
    told = {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # with it a cluster on loopback hangs
        "RAY_USAGE_STATS_ENABLED": "0",
        "TINY_PAUSE": str(shop / "pause"),
    }
    before = {name: os.environ.get(name) for name in told}
    os.environ.update(told)
    from ray.cluster_utils import Cluster

    made = Cluster()
    try:
        made.add_node(num_cpus=0, include_dashboard=False, ray_client_server_port=free_port())
        for _ in range(2):
            made.add_node(num_cpus=1)
        yield made
    finally:
        made.shutdown()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def inside(node: Any) -> set[int]:
    """The processes of a simulated node itself, whose children run the cells."""
    return {info.process.pid for several in node.all_processes.values() for info in several}


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.full
def test_a_node_that_does_not_see_the_store_is_named(cluster: Any, shop: Path) -> None:
    """The driver sees a folder of its own where the nodes see another one: a mount that only it has."""
    own = ["unshare", "--mount", "--map-root-user"]
    if subprocess.run([*own, "mount", "-t", "tmpfs", "none", "/mnt"], check=False, capture_output=True).returncode:
        pytest.skip("this machine lets no process have mounts of its own (unshare --mount)")
    (shop / "elsewhere").mkdir()
    run = f"mount -t tmpfs none elsewhere && exec {sys.executable} -m sublevel.cli run small.toml"
    done = subprocess.run(
        [*own, "sh", "-c", f"{run} --store elsewhere/store --executor ray"],
        cwd=shop, env=environment(RAY_ADDRESS=cluster.address), capture_output=True, text=True, check=False,
        timeout=150,
    )  # fmt: skip
    assert done.returncode == 2, (done.stdout, done.stderr)
    (sentence,) = done.stderr.splitlines()
    assert f"do not see the store in {shop / 'elsewhere' / 'store'}" in sentence
    nodes = {node.node_id[:8] for node in cluster.worker_nodes}
    assert all(name in sentence for name in nodes), (nodes, sentence)
    assert not (shop / "sublevel-runs" / "small" / "study.json").exists()


@pytest.mark.full
def test_a_node_that_is_killed_changes_no_number(cluster: Any, shop: Path) -> None:
    """The cell that ran on it is tried again on the other one; the driver is a client outside the cluster."""
    pause = shop / "pause"
    pause.touch()
    client = f"ray://127.0.0.1:{cluster.head_node._ray_params.ray_client_server_port}"
    running = Running(*RUN, "--executor", client, cwd=shop)
    here = cli(*RUN, "--jobs", 1, "--out", "here", cwd=shop)
    assert here.returncode == 0, here.stderr
    (pid,) = until(lambda: paused(pause), 400)
    node = next(node for node in cluster.worker_nodes if parent(pid) in inside(node))
    cluster.remove_node(node, allow_graceful=False)
    until(lambda: len(paused(pause)) == 2, 400)
    pause.unlink()
    code, out, err = running.end()
    assert code == 0, (out, err)
    assert "failed" not in out
    assert tables(shop / "sublevel-runs" / "small") == tables(shop / "here" / "small")
    assert not list((shop / "sublevel-runs" / ".store" / "tmp").glob("sight-*"))


def test_a_name_that_no_executor_has() -> None:
    with pytest.raises(ConfigError, match="unknown executor 'rya'; did you mean 'ray'"):
        executors.check("rya")
