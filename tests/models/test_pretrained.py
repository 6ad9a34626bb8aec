"""``hf:FOLDER``: the network computes what `transformers` computes, or is refused in one sentence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import sublevel as sl
from networks.folders import LENGTH, VOCABULARY, folder, network, saved
from sublevel.errors import ConfigError, DataError, ModelError

pytest.importorskip("transformers")
N = 12
DRAW = torch.Generator().manual_seed(3)
IDS = torch.randint(1, VOCABULARY, (N, LENGTH), generator=DRAW)
LENGTHS = torch.randint(2, LENGTH + 1, (N,), generator=DRAW)
MASK = (torch.arange(LENGTH) < LENGTHS[:, None]).long()
PADDED = IDS * MASK
CLASSES = torch.arange(N) % 3
LABELS = torch.where(MASK == 1, PADDED, -100)
INPUTS = {"input_ids": PADDED, "attention_mask": MASK}


def problem(name: str, data, **more) -> sl.Problem:
    return sl.Problem(name, train=data, test=data, validation=0, dtype="float64", prunable="matrices", **more)


def dense(loss, net: nn.Module) -> torch.Tensor:
    """The Hessian of the network's own loss, row by row."""
    parameters = list(net.parameters())
    with sdpa_kernel(SDPBackend.MATH):
        slope = torch.autograd.grad(loss(net), parameters, create_graph=True, materialize_grads=True)
        flat = torch.cat([g.reshape(-1) for g in slope])
        rows = [torch.autograd.grad(each, parameters, retain_graph=True, materialize_grads=True) for each in flat[::37]]
    return torch.stack([torch.cat([g.reshape(-1) for g in row]) for row in rows])


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_causal_model_has_the_loss_of_its_own_code(kind: str):
    name = f"hf:{folder(kind, 'causal-lm')}"
    p, net = problem(name, (INPUTS, LABELS)), network(kind, "causal-lm").double()
    field, at = p.field("train", batch_size=5), p.init(0)
    own = net(input_ids=PADDED, attention_mask=MASK, labels=LABELS).loss  # which is computed in float32
    assert field.loss(at) == pytest.approx(own.item(), rel=1e-6)
    assert torch.equal(p.init(0).theta, p.init(1).theta)

    def loss(net):
        scores = net(input_ids=PADDED, attention_mask=MASK).logits[:, :-1]
        return F.cross_entropy(scores.flatten(0, 1), LABELS[:, 1:].flatten())

    assert field.loss(at) == pytest.approx(loss(net).item(), rel=1e-9)

    rows = dense(loss, net)
    basis = torch.eye(p.space.dim, dtype=torch.float64)[::37]
    torch.testing.assert_close(field.hvp(at, basis), rows, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama"])
def test_a_classifier_has_the_loss_of_its_own_code(kind: str):
    name = f"hf:{folder(kind, 'sequence-classification')}"
    p, net = problem(name, (INPUTS, CLASSES)), network(kind, "sequence-classification", num_labels=3).double()
    own = F.cross_entropy(net(input_ids=PADDED, attention_mask=MASK).logits, CLASSES)
    field, at = p.field("train", batch_size=5), p.init(0)
    assert field.loss(at) == pytest.approx(own.item(), rel=1e-9)
    assert own.item() == pytest.approx(net(input_ids=PADDED, attention_mask=MASK, labels=CLASSES).loss.item(), rel=1e-6)
    v = torch.randn(2, p.space.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    products = field.hvp(at, v)
    assert float(v[1] @ products[0]) == pytest.approx(float(v[0] @ products[1]), rel=1e-6)  # Llama's norms are float32
    assert float(v[0] @ field.ggn_vp(at, v[0])) > 0


def test_shards_and_bfloat16_are_read_exactly(tmp_path: Path):
    net = network("llama", "causal-lm")
    name = saved(net.to(torch.bfloat16), tmp_path / "a", max_shard_size="1KB")
    assert len(list(Path(name).glob("*.safetensors"))) > 1
    p = problem(f"hf:{name}", (IDS[:, :-1], IDS[:, 1:]))
    own = {n: t.double() for n, t in net.state_dict().items()}
    assert all(torch.equal(view, own[n]) for n, view in p.space.views(p.init(0).theta).items())
    shard = sorted(Path(name).glob("*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(ModelError, match=rf"names the shard {shard.name}, which is missing: copy it into"):
        _ = problem(f"hf:{name}", (IDS[:, :-1], IDS[:, 1:])).module


def test_a_new_head_is_drawn_by_the_seed_and_a_checkpoint_needs_its_own():
    body = f"hf:{folder('bert', 'body')}"
    p = problem(body, (INPUTS, CLASSES), options={"task": "sequence-classification"})
    a, b = p.space.views(p.init(0).theta), p.space.views(p.init(1).theta)
    differing = {name for name in a if not torch.equal(a[name], b[name])}
    assert differing == {"classifier.weight"}
    assert torch.equal(p.init(0).theta, p.init(0).theta)
    with pytest.raises(ModelError, match=r"lacks the weight 'classifier.bias' \(and 1 more\)"):
        p.point(folder("bert", "body"))
    trained = folder("bert", "sequence-classification", 5)
    assert torch.equal(p.point(trained).theta, problem(f"hf:{trained}", (INPUTS, CLASSES)).init(0).theta)


def test_options_are_keys_of_the_configuration():
    name = f"hf:{folder('gpt2', 'causal-lm')}"
    data = (IDS[:, :-1], IDS[:, 1:])
    p = problem(name, data, options={"attn_pdrop": 0.25, "attn_implementation": "eager"})
    assert p.module.config.attn_pdrop == 0.25
    assert p.fingerprint() != problem(name, data).fingerprint()
    assert p.field("train").loss(p.init(0)) == pytest.approx(problem(name, data).field("train").loss(p.init(0)))
    with pytest.raises(ConfigError, match=r"unknown option 'attn_pdrp' .*did you mean 'attn_pdrop'"):
        _ = problem(name, data, options={"attn_pdrp": 0.25}).module
    fresh = problem(name, data, options={"weights": "random"})
    assert not torch.equal(fresh.init(0).theta, fresh.init(1).theta)


def test_the_key_is_that_of_the_weights_and_not_of_the_folder(tmp_path: Path):
    name = folder("gpt2", "causal-lm")
    other = shutil.copytree(name, tmp_path / "elsewhere")
    data = (IDS[:, :-1], IDS[:, 1:])
    assert problem(f"hf:{name}", data).fingerprint() == problem(f"hf:{other}", data).fingerprint()
    assert (
        problem(f"hf:{folder('gpt2', 'causal-lm', 1)}", data).fingerprint() != problem(f"hf:{name}", data).fingerprint()
    )


def _edited(tmp_path: Path, **more) -> str:
    there = shutil.copytree(folder("gpt2", "causal-lm"), tmp_path / "edited")
    known = json.loads((there / "config.json").read_text())
    (there / "config.json").write_text(json.dumps({**known, **more}))
    return f"hf:{there}"


def test_a_folder_that_needs_more_is_refused(tmp_path: Path):
    data = (IDS[:, :-1], IDS[:, 1:])

    def refused(name: str, match: str) -> None:
        with pytest.raises(ModelError, match=match):
            _ = problem(name, data).module

    refused(f"hf:{tmp_path / 'none'}", "there is no such folder; download a model of the Hub first")
    refused(f"hf:{tmp_path}", r"has no config.json")
    name = _edited(tmp_path, quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True})
    refused(name, "holds quantised weights, which have no Hessian")
    shutil.rmtree(tmp_path / "edited")
    name = _edited(
        tmp_path, model_type="mine", auto_map={"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Net"}
    )
    (tmp_path / "edited" / "code.py").write_text("raise SystemExit('this ran')")
    refused(name, "of the type 'mine', which .* does not know: its network is code in the folder")
    shutil.rmtree(tmp_path / "edited")
    name = _edited(tmp_path)
    (tmp_path / "edited" / "adapter_config.json").write_text("{}")
    refused(name, r"holds an adapter \(LoRA\).*merge_and_unload")
    shutil.rmtree(tmp_path / "edited")
    name = _edited(tmp_path, architectures=["T5ForConditionalGeneration"])
    refused(name, "name its task")
    shutil.rmtree(tmp_path / "edited")
    name = _edited(tmp_path, n_layer=2)
    refused(name, r"lacks the weight 'transformer.h.1")
    shutil.rmtree(tmp_path / "edited")
    name = _edited(tmp_path)
    (tmp_path / "edited" / "model.safetensors").rename(tmp_path / "edited" / "pytorch_model.bin")
    refused(name, r"holds its weights as a pickle \(\*.bin\)")


def test_an_index_to_ignore_other_than_the_usual_one():
    name, y = f"hf:{folder('gpt2', 'causal-lm')}", torch.where(MASK[:, 1:] == 1, PADDED[:, 1:], 0)
    data = ({"input_ids": PADDED[:, :-1], "attention_mask": MASK[:, :-1]}, y)
    p = problem(name, data, loss=nn.CrossEntropyLoss(ignore_index=0))
    net = network("gpt2", "causal-lm").double()
    logits = net(input_ids=PADDED[:, :-1], attention_mask=MASK[:, :-1]).logits
    own = F.cross_entropy(logits.flatten(0, 1), y.flatten(), ignore_index=0)
    assert p.field("train", batch_size=5).loss(p.init(0)) == pytest.approx(own.item(), rel=1e-9)
    direct = sl.EmpiricalRisk(
        p.space,
        p.module,
        p.splits.train.x,
        y,
        prepare=p.prepare,
        loss=nn.CrossEntropyLoss(ignore_index=0),
        batch_size=5,
    )
    assert direct.loss(p.init(0)) == pytest.approx(own.item(), rel=1e-9)


def test_the_same_tensors_in_another_configuration_are_refused(tmp_path: Path):
    name = folder("gpt2", "causal-lm")
    data = (IDS[:, :-1], IDS[:, 1:])
    p = problem(f"hf:{name}", data)
    other = saved(network("gpt2", "causal-lm", n_head=4), tmp_path / "other")
    for source in (other, Path(other) / "model.safetensors"):
        with pytest.raises(ModelError, match=r"config.json has n_head = 4, the network 2: that is another function"):
            p.point(source)
    wet = saved(network("gpt2", "causal-lm", attn_pdrop=0.3), tmp_path / "wet")
    assert torch.equal(p.point(wet).theta, p.init(0).theta)


def test_tokens_outside_the_vocabulary_are_refused():
    name = f"hf:{folder('gpt2', 'causal-lm')}"
    for data in ((IDS[:, :-1] + 1, IDS[:, 1:]), ({"input_ids": IDS[:, :-1] + 1}, IDS[:, 1:])):
        with pytest.raises(DataError, match=r"the inputs have the token 13; the network has 0..12"):
            _ = problem(name, data).module


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_an_input_that_the_network_ignores_is_refused(kind: str):
    name = f"hf:{folder(kind, 'causal-lm')}"
    data = {"input_ids": PADDED, "attention_masks": MASK}, LABELS
    with pytest.raises(ModelError, match=r"ignores the input 'attention_masks'.*did you mean 'attention_mask'"):
        _ = problem(name, data).module
    places = torch.arange(LENGTH).expand(N, LENGTH)
    p = problem(name, ({**INPUTS, "position_ids": places}, LABELS))
    own = network(kind, "causal-lm").double()(**INPUTS, position_ids=places, labels=LABELS).loss
    assert p.field("train").loss(p.init(0)) == pytest.approx(own.item(), rel=1e-6)


def test_a_loss_of_its_users_takes_the_whole_scores():
    name = f"hf:{folder('gpt2', 'causal-lm')}"

    def margin(scores, y):
        return (1 + scores.logsumexp(-1) - scores.gather(-1, y[..., None])[..., 0]).square().mean(1)

    data = (IDS[:, :-1], IDS[:, 1:])
    p = problem(name, data, loss=margin)
    net = network("gpt2", "causal-lm").double()
    own = margin(net(IDS[:, :-1]).logits, IDS[:, 1:]).mean()
    assert p.field("train", batch_size=5).loss(p.init(0)) == pytest.approx(own.item(), rel=1e-9)


def test_labels_that_are_the_tokens_are_refused_where_the_users_function_builds_the_network():
    with pytest.raises(ModelError, match=r"would shift: give inputs tokens\[:, :-1\] and labels tokens\[:, 1:\]"):
        _ = problem(lambda: network("gpt2", "causal-lm"), (IDS, IDS), version="1").module


def test_damaged_weights_are_refused(tmp_path: Path):
    name, data = _edited(tmp_path), (IDS[:, :-1], IDS[:, 1:])
    (tmp_path / "edited" / "model.safetensors").write_bytes(b"abc")
    with pytest.raises(ModelError, match="cannot be read"):
        _ = problem(name, data).module
    lost = network("gpt2", "causal-lm")
    with torch.no_grad():
        lost.transformer.wpe.weight[0, 0] = torch.nan
    with pytest.raises(ModelError, match=r"the weight 'transformer.wpe.weight' is not finite"):
        _ = problem(f"hf:{saved(lost, tmp_path / 'lost')}", data).module
    shutil.rmtree(tmp_path / "edited")
    with pytest.raises(ModelError, match=r"do not fit config.json: a tensor has another shape"):
        _ = problem(_edited(tmp_path, n_inner=16), data).module
