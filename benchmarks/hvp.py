"""Hessian products: time and memory against curvlinops and PyHessian, and products to the top 20 against scipy.

All sides multiply the Hessian of one ResNet-8 (width 16, BatchNorm's stored statistics) on the same 512 CIFAR-shaped
images in the same batches, in float32, with one vector that is the same everywhere, one thread, in one process, in
turn: the figures are ratios within each round, and the products are compared first. Speed does not depend on what is
on the images. PyHessian keeps the graph of the gradient where it is given one single batch: that is a row of its own.

    python benchmarks/hvp.py                      # all parts
    python benchmarks/hvp.py speed malloc         # or some of: speed kept malloc memory eigenvalues

It needs the two libraries, which have no place in sublevel's own environment. Make another one, with sublevel's
dependencies and the versions of torch that constraints/ names, and install them into it without their dependencies
(some of which would replace torch); then what they import: backpack-for-pytorch, einops, einconv, unfoldNd, opt_einsum,
linear_operator and packaging.

    python3 -m venv bench && bench/bin/pip install -c constraints/cpu.txt torch numpy safetensors scipy
    bench/bin/pip install --no-deps curvlinops-for-pytorch==3.0.1 pyhessian==0.1 backpack-for-pytorch ...
    PYTHONPATH=src OMP_NUM_THREADS=1 bench/bin/python benchmarks/hvp.py
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

from common import RECORDS, record, spread
from sublevel.geometry.curvature import top_eigenvalues
from sublevel.models import build
from sublevel.risk import EmpiricalRisk, cross_entropy
from sublevel.rng import generator, seeded
from sublevel.space import Point, Space

IMAGES, BATCH, ROUNDS = 512, 128, 7
PARTS = ("speed", "kept", "malloc", "memory", "eigenvalues")
Product = Callable[[], Tensor]


def network() -> nn.Module:
    """ResNet-8 in evaluation mode, its running statistics those of images that it has seen."""
    with seeded(0, "init"), torch.no_grad():
        net = build("resnet-8", input_shape=(3, 32, 32), classes=10)
        net.train()(torch.randn(256, 3, 32, 32))
    return net.eval()


def images(n: int) -> tuple[Tensor, Tensor]:
    """Normalised noise with random classes."""
    g = generator(0, "probe")
    return torch.randn(n, 3, 32, 32, generator=g), torch.randint(0, 10, (n,), generator=g)


class Setting:
    """One network, its examples in batches, one vector."""

    def __init__(self) -> None:
        self.net = network()
        self.space = Space.of(self.net)
        self.point = self.space.point(self.net)
        self.x, self.y = images(IMAGES)
        self.v = torch.randn(self.space.dim, generator=generator(1, "probe"))
        self.batches = list(zip(self.x.split(BATCH), self.y.split(BATCH), strict=True))

    def field(self, keep_bytes: int = 0, batch_size: int | None = None) -> EmpiricalRisk:
        """The field of sublevel."""
        size = batch_size or BATCH
        return EmpiricalRisk(self.space, self.net, self.x, self.y, batch_size=size, keep_bytes=keep_bytes)

    def parts(self) -> list[Tensor]:
        """The vector as a list of tensors shaped like the parameters."""
        return list(self.space.views(self.v).values())


def ours(setting: Setting) -> Product:
    """Plain double backward."""
    field = setting.field()
    return lambda: field.hvp(setting.point, setting.v)


def ours_kept(setting: Setting, keep_bytes: int = 2**34) -> Product:
    """With the graphs of all batches kept."""
    field = setting.field(keep_bytes)
    return lambda: field.hvp(setting.point, setting.v)


def ours_half_kept(setting: Setting) -> Product:
    """With memory for half of the batches: 340 MiB of the 625 that all four take."""
    return ours_kept(setting, 340 * 2**20)


def ours_kept_whole(setting: Setting) -> Product:
    """With the graph kept of all images as one batch."""
    field = setting.field(2**34, IMAGES)
    return lambda: field.hvp(setting.point, setting.v)


def curvlinops(setting: Setting) -> Product:
    """curvlinops.HessianLinearOperator."""
    from curvlinops import HessianLinearOperator

    parameters = [p for p in setting.net.parameters() if p.requires_grad]
    loss = nn.CrossEntropyLoss(reduction="mean")
    operator = HessianLinearOperator(setting.net, loss, parameters, setting.batches, check_deterministic=False)
    return lambda: operator @ setting.v


def pyhessian(setting: Setting) -> Product:
    """PyHessian over batches: its product is what its power iteration calls."""
    from pyhessian import hessian

    tool = hessian(setting.net, nn.CrossEntropyLoss(), dataloader=setting.batches, cuda=False)
    tool.params = [p for p in setting.net.parameters() if p.requires_grad]
    return lambda: flat(tool.dataloader_hv_product(setting.parts())[1])


def pyhessian_kept(setting: Setting) -> Product:
    """PyHessian with all images as one batch, whose gradient's graph it keeps."""
    from pyhessian import hessian
    from pyhessian.utils import hessian_vector_product

    tool = hessian(setting.net, nn.CrossEntropyLoss(), data=(setting.x, setting.y), cuda=False)
    setting.net.zero_grad()
    return lambda: flat(hessian_vector_product(tool.gradsH, tool.params, setting.parts()))


def flat(parts: list[Tensor]) -> Tensor:
    """One vector."""
    return torch.cat([p.detach().reshape(-1) for p in parts])


ARMS: dict[str, Callable[[Setting], Product]] = {
    "sublevel": ours,
    "sublevel, graphs kept": ours_kept,
    "sublevel, half of them kept": ours_half_kept,
    "sublevel, one batch kept": ours_kept_whole,
    "curvlinops": curvlinops,
    "PyHessian": pyhessian,
    "PyHessian, one batch kept": pyhessian_kept,
}
PLAIN = ["sublevel", "sublevel, graphs kept", "curvlinops", "PyHessian"]
KEPT = ["sublevel", "sublevel, half of them kept", "sublevel, one batch kept", "PyHessian, one batch kept"]
RATIOS = (
    ("sublevel, graphs kept", "curvlinops"),
    ("sublevel, graphs kept", "PyHessian"),
    ("sublevel", "curvlinops"),
    ("sublevel", "PyHessian"),
    ("sublevel, graphs kept", "sublevel"),
    ("sublevel, half of them kept", "sublevel"),
    ("sublevel, one batch kept", "PyHessian, one batch kept"),
)


def speed(names: list[str]) -> dict:
    """Seconds per product of the arms in turn, and the ratios within each round; the first round is not timed."""
    setting = Setting()
    products = {name: ARMS[name](setting) for name in names}
    warm = {name: product() for name, product in products.items()}
    agree = {name: float((p - warm["sublevel"]).norm() / p.norm()) for name, p in warm.items()}
    if max(agree.values()) > 1e-4:
        raise SystemExit(f"the products differ: {agree}")
    rounds = [{name: seconds(product) for name, product in products.items()} for _ in range(ROUNDS)]
    return {
        "seconds": {name: spread([r[name] for r in rounds]) for name in names},
        "ratio of seconds": {
            f"{a} / {b}": spread([r[a] / r[b] for r in rounds]) for a, b in RATIOS if a in names and b in names
        },
        "relative difference from sublevel's product": {name: f"{d:.0e}" for name, d in agree.items()},
    }


def seconds(function: Callable[[], object]) -> float:
    """Wall time of one call."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def malloc() -> dict:
    """The same where the allocator (glibc's) gives no large block back: each activation is otherwise mapped anew."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        return {"not measured": "the C library has no mallopt"}
    trim, mmap = -1, -3
    if not (libc.mallopt(mmap, 2**30) and libc.mallopt(trim, 2**31 - 1)):
        return {"not measured": "mallopt refused the thresholds"}
    return speed(PLAIN)


def memory() -> dict:
    """Peak resident MiB of three products above what the process held before them, each arm in a process of its own."""
    rows = {}
    for name in ARMS:
        output = subprocess.run([sys.executable, __file__, "--peak", name], check=True, capture_output=True, text=True)
        rows[name] = json.loads(output.stdout.splitlines()[-1])
    return rows


def peak(name: str) -> dict:
    """One arm's peak, and for sublevel what it says that it has kept."""
    setting = Setting()
    Path("/proc/self/clear_refs").write_text("5")  # the peak until now does not count
    before = resident("VmRSS")
    product = ARMS[name](setting)
    for _ in range(3):
        product()
    row = {"peak MiB": round(resident("VmHWM") - before)}
    if name in ("sublevel, graphs kept", "sublevel, one batch kept"):
        field = setting.field(2**34, BATCH if name == "sublevel, graphs kept" else IMAGES)
        field.hvp(setting.point, setting.v)
        row |= {"kept MiB, as stated": round(field.kept_bytes / 2**20), "kept batches": field.kept_batches}
    return row


def resident(what: str) -> float:
    """Resident memory of this process in MiB, now (VmRSS) or at most (VmHWM), as Linux tells it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(what))


def eigenvalues(k: int = 20) -> dict:
    """Products to the k largest eigenvalues at equal residual, on a network that has been trained a little."""
    from scipy.sparse.linalg import LinearOperator, eigsh

    net, (x, y) = network(), images(32)
    point = trained(net, x, y)
    field = EmpiricalRisk(Space.of(net), net, x, y, keep_bytes=2**33)
    rows, found = {}, {}
    for restarts, tolerance in ((3, 1e-3), (0, 1e-3), (3, 1e-5)):
        spectrum = top_eigenvalues(field, point, k=k, restarts=restarts, tolerance=tolerance)
        residual = float(spectrum.residuals.max()) / float(spectrum.values[0])
        found[restarts, tolerance] = (spectrum, residual)
        rows[f"sublevel, {restarts} searches for copies, tolerance {tolerance:g}"] = {
            "products": spectrum.products,
            "of them to compute the residuals anew": k + 1,
            "largest residual / lambda_1": f"{residual:.1e}",
            "stop": spectrum.stop,
        }
    exact, bound = found[3, 1e-5][0].values, found[3, 1e-3][1]
    for (restarts, tolerance), (spectrum, _) in found.items():
        name = f"sublevel, {restarts} searches for copies, tolerance {tolerance:g}"
        rows[name]["largest difference from the values at tolerance 1e-05 / lambda_1"] = (
            f"{difference(exact, spectrum.values.numpy()):.1e}"
        )
    calls = [0]

    def times(v) -> object:
        calls[0] += 1
        return field.hvp(point, torch.from_numpy(v.reshape(-1).astype("float32"))).double().numpy()

    operator = LinearOperator((field.dim, field.dim), matvec=times, dtype="float64")
    start = torch.randn(field.dim, generator=generator(0, "probe"), dtype=torch.float64).numpy()
    for basis in (41, 64, 96):
        for tolerance in (1e-1, 3e-2, 1e-2, 1e-3):
            calls[0] = 0
            values, vectors = eigsh(operator, k, which="LA", tol=tolerance, ncv=basis, v0=start)
            products = calls[0]
            true = max(
                float((torch.from_numpy(times(u)) - a * torch.from_numpy(u)).norm())
                for a, u in zip(values, vectors.T.copy(), strict=True)
            )
            rows[f"scipy eigsh, ncv = {basis}, tol = {tolerance:g}"] = {
                "products": products,
                "largest residual / lambda_1": f"{true / values.max():.1e}",
                "largest difference from the values at tolerance 1e-05 / lambda_1": f"{difference(exact, values):.1e}",
            }
            if true / values.max() <= bound:
                break
    enough = [
        row["products"]
        for name, row in rows.items()
        if name.startswith("scipy") and float(row["largest residual / lambda_1"]) <= bound * 1.01
    ]
    best = min(enough) if enough else None
    return {
        "k": k,
        "dimension": field.dim,
        "methods": rows,
        "fewest products of scipy at sublevel's residual, bases and tolerances tried": best,
        "products, sublevel / scipy": {
            "all": best and found[3, 1e-3][0].products / best,
            "without the searches for copies": best and found[0, 1e-3][0].products / best,
            "without them and the check of the residuals, which scipy leaves to the caller": best
            and (found[0, 1e-3][0].products - k - 1) / best,
        },
    }


def difference(a: Tensor, values) -> float:
    """Largest distance of two lists of eigenvalues, over the largest eigenvalue."""
    b = torch.from_numpy(values).sort(descending=True).values
    return float((a.double() - b).abs().max() / b[0])


def trained(net: nn.Module, x: Tensor, y: Tensor, steps: int = 60) -> Point:
    """A point down the loss, by gradient descent on the field."""
    field, point = EmpiricalRisk(Space.of(net), net, x, y), Space.of(net).point(net)
    for _ in range(steps):
        gradient = field.grad(point)
        point = Point(point.theta - 0.2 * gradient / gradient.norm(), point.buffers)
    assert float(cross_entropy(torch.zeros(1, 10), y[:1])) > field.loss(point)
    return point


def earlier() -> dict:
    """What another call of today has recorded."""
    path = RECORDS / f"{date.today().isoformat()}-hvp.json"
    return json.loads(path.read_text(encoding="utf-8")).get("results", {}) if path.exists() else {}


def main(arguments: list[str]) -> None:
    """Measure the parts asked for, and record them beside today's others."""
    torch.set_num_threads(1)
    if arguments[:1] == ["--peak"]:
        print(json.dumps(peak(arguments[1])))
        return
    measures = {
        "speed": lambda: speed(PLAIN),
        "kept": lambda: speed(KEPT),
        "memory": memory,
        "eigenvalues": eigenvalues,
    }
    results = earlier()
    for part in arguments or PARTS:
        if part == "malloc":  # the thresholds stay for the rest of a process
            output = subprocess.run([sys.executable, __file__, "--malloc"], check=True, capture_output=True, text=True)
            results[part] = json.loads(output.stdout.splitlines()[-1])
            continue
        results[part] = measures[part]()
    record(
        "hvp",
        __file__,
        {
            "threads": 1,
            "dtype": "float32",
            "work": f"Hessian of ResNet-8 (width 16) times v, {IMAGES} images of 3x32x32 in batches of {BATCH}",
            "compared with": {name: version(name) for name in ("curvlinops-for-pytorch", "pyhessian", "scipy")},
            "targets": "graphs kept <= 0.8 x curvlinops and PyHessian; plain <= 1.0 x",
            "median ratios": {name: row["median"] for name, row in results["speed"]["ratio of seconds"].items()}
            if "speed" in results
            else "speed not measured",
            "results": results,
        },
    )


if __name__ == "__main__":
    if sys.argv[1:] == ["--malloc"]:
        torch.set_num_threads(1)
        print(json.dumps(malloc()))
    else:
        main(sys.argv[1:])
