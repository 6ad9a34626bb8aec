"""Tickets inside a loop of one's own equal those of a study that takes the same steps."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn

import own_net
import sublevel as sl
from sublevel.data.batches import epoch_plan
from sublevel.errors import ConfigError
from sublevel.loop import Tickets
from tiny_runs import python

RECIPE = {"length": "3ep", "batch_size": 20, "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3, "dtype": "float64"}
REWIND, LEVELS = 2, 3


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(120, 6, generator=rng)
    y = torch.randint(3, (120,), generator=rng)
    problem = sl.Problem(own_net.build, train=(x[:80], y[:80]), test=(x[80:], y[80:]), validation=0)
    out = tmp_path_factory.mktemp("loop")
    study = sl.Study(problem, levels=LEVELS, fraction=0.3, rewind=f"{REWIND}it", train=RECIPE, out=out)
    return study.run(jobs=1, report=False)


def trained(problem, optimizer_of, levels=LEVELS, **options):
    """The loop of a user: levels of training with PyTorch's own optimizer, on the study's batches."""
    net = own_net.build().double()
    problem.space.write(net, problem.init(0))
    optimizer = optimizer_of(net.parameters())
    tickets, found = Tickets(net, optimizer, rewind=REWIND, fraction=0.3, **options), []
    data = problem.splits.train
    for level in range(levels + 1):
        while tickets.step_count < 12:
            epoch, inside = divmod(tickets.step_count, 4)
            chosen = epoch_plan(len(data), seed=0, epoch=epoch).index[inside * 20 : (inside + 1) * 20]
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(problem.prepare(data.x[chosen])), data.y[chosen]).backward()
            optimizer.step()
            tickets.step()
        found.append(tickets.ticket())
        if level < levels:
            tickets.prune()
            assert tickets.rewind() == REWIND
    return tickets, found


def adam(parameters):
    return torch.optim.Adam(parameters, lr=0.01)


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=1e-3)


def test_masks_and_tickets_equal_those_of_a_study(result):
    _, found = trained(result.problem, sgd)
    for level, mine in enumerate(found):
        if level:
            theirs = result.ticket("imp", level, seed=0)
            assert torch.equal(mine.mask, theirs.mask)
            assert torch.allclose(mine.start.theta, theirs.start.theta, rtol=0, atol=1e-12)
            assert torch.allclose(mine.end.theta, theirs.end.theta, rtol=0, atol=1e-10)


def test_pruned_weights_gradients_and_optimizer_state_are_exactly_0(result):
    for optimizer_of in (sgd, adam):
        tickets, _ = trained(result.problem, optimizer_of, levels=1)
        for weight, mask in tickets._masked():
            state = [t for t in tickets.optimizer.state[weight].values() if t.shape == weight.shape]
            assert (~mask).any()
            assert state
            for tensor in (weight, weight.grad, *state):
                assert (tensor[~mask] == 0).all()
                assert (tensor[mask] != 0).any()


def test_clipping_by_the_gradients_norm_does_not_see_pruned_weights():
    net = nn.Linear(3, 1, bias=False)
    net.weight.data = torch.tensor([[3.0, 0.1, 2.0]])
    tickets = Tickets(net, fraction=0.34)
    tickets.prune()
    net(torch.tensor([[1.0, 100.0, 1.0]])).sum().backward()
    assert net.weight.grad.tolist() == [[1.0, 0.0, 1.0]]


def test_a_loop_goes_on_from_a_checkpoint(result):
    whole, _ = trained(result.problem, sgd, levels=2)
    tickets, _ = trained(result.problem, sgd, levels=1)
    saved = {"loop": tickets.state_dict(), "net": tickets.net.state_dict()}
    net = own_net.build().double()
    net.load_state_dict(saved["net"])
    again = Tickets(net, rewind=REWIND, fraction=0.3)
    again.load_state_dict(saved["loop"])
    again.prune()
    assert torch.equal(again.mask, whole.mask)
    again.rewind()
    assert torch.equal(again._point().theta, whole.start.project(whole.mask).theta)


def test_buffers_go_back_too():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    tickets = Tickets(net, rewind=0, fraction=0.5)
    net(torch.randn(4, 1, 5, 5) + 3)
    assert net[1].running_mean.abs().max() > 0.01
    tickets.prune()
    tickets.rewind()
    assert net[1].running_mean.abs().max() == 0
    assert tickets.ticket().module()[1].running_mean.abs().max() == 0


def test_criteria_that_look_at_the_loss_take_a_field(result):
    problem = result.problem
    net = own_net.build().double()
    problem.space.write(net, problem.init(0))
    tickets = Tickets(net, fraction=0.3, criterion="snip")
    with pytest.raises(ConfigError, match="snip"):
        tickets.prune()
    tickets.prune(problem.field("train"))
    assert tickets.density == pytest.approx(0.7, abs=0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rewind": "2ep"}, "rewind is a number of optimizer steps, such as 500 or '500it'; got '2ep'"),
        ({"rewind": -1}, "got -1"),
        ({"rewind": True}, "got True"),
        ({"fraction": 1.0}, "fraction lies between 0 and 1, got 1"),
        ({"criterion": "magnitud"}, "magnitude"),
        ({"scope": "globall"}, "global"),
        ({"protect": ["nothing"]}, "'nothing' matches no prunable layer"),
        ({"depth": 3}, "depth"),
    ],
)
def test_invalid_options_are_refused(options, message):
    with pytest.raises((ConfigError, TypeError), match=message):
        Tickets(nn.Linear(3, 2), **options)


def test_a_rewind_point_that_was_not_reached_is_said():
    tickets = Tickets(nn.Linear(3, 2), rewind="5it")
    tickets.step()
    for call in (tickets.prune, tickets.rewind, tickets.ticket):
        with pytest.raises(ConfigError, match="the rewind point is that of step 5, and only 1 were taken: call step"):
            call()
    assert (tickets.level, tickets.density) == (0, 1.0)


def test_the_state_of_another_network_is_refused():
    tickets = Tickets(nn.Linear(3, 2))
    with pytest.raises(ConfigError, match="the state has 12 weights, and this network 8"):
        tickets.load_state_dict(Tickets(nn.Linear(3, 3)).state_dict())


SEEN = """
import runpy, sys
dense, ticket = runpy.run_path(sys.argv[1])["main"](levels=1)
pruned = ticket.end.theta[~ticket.mask]
print("seen", dense.density, round(ticket.density, 2), ticket.about["steps"], bool((pruned == 0).all()),
      bool((dense.start.theta == ticket.start.theta).all()), bool((ticket.start.theta == ticket.end.theta).all()))
"""


@pytest.mark.parametrize(
    ("name", "package", "steps"), [("lightning", "lightning", 60), ("trainer", "transformers", 40)]
)
def test_the_callbacks_hold_tickets_in_other_packages_loops(name, package, steps, tmp_path):
    """In a process of its own: these packages change the filters of warnings, the loggers and the hooks of exit."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    path = Path(__file__).parent.parent / "examples" / "callbacks" / f"{name}_tickets.py"
    done = python("-c", SEEN, path, cwd=tmp_path, timeout=120)
    assert f"seen 1.0 0.6 {steps} True True False" in done.stdout, done.stderr
