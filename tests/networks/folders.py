"""Tiny transformers in folders, made from their configurations, as ``save_pretrained`` writes them."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch

VOCABULARY, LENGTH = 13, 6
_NAMES = {"bert": "Bert", "gpt2": "GPT2", "llama": "Llama"}
_SIZES: dict[str, dict[str, Any]] = {
    "bert": {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12},
    "gpt2": {"n_embd": 8, "n_layer": 1, "n_head": 2, "n_inner": 12},
    "llama": {
        "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
        "intermediate_size": 12,
    },
}  # fmt: skip
CAUSAL = {"gpt2": "GPT2LMHeadModel", "llama": "LlamaForCausalLM"}


def config(kind: str, **more: Any) -> Any:
    """The configuration of a tiny network of a kind, without dropout."""
    import transformers

    dropout = {"gpt2": ("resid_pdrop", "embd_pdrop", "attn_pdrop")}.get(
        kind, ("hidden_dropout_prob", "attention_probs_dropout_prob")
    )
    rest = {name: 0.0 for name in dropout if kind != "llama"}
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    positions = {"n_positions" if kind == "gpt2" else "max_position_embeddings": 16}
    sizes = {**_SIZES[kind], "vocab_size": VOCABULARY, **positions, **rest, **ends, **more}
    return getattr(transformers, f"{_NAMES[kind]}Config")(**sizes)


def network(kind: str, task: str, seed: int = 0, **more: Any) -> Any:
    """A tiny network of a kind for a task, in evaluation mode, away from its initial biases."""
    import transformers

    made = {"causal-lm": CAUSAL.get(kind, ""), "sequence-classification": f"{_NAMES[kind]}ForSequenceClassification",
            "body": f"{_NAMES[kind]}Model"}[task]  # fmt: skip
    torch.manual_seed(seed)
    net = getattr(transformers, made)(config(kind, **more))
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return net.eval()


def saved(net: Any, folder: str | Path, **how: Any) -> str:
    """The folder of a network, written without reports."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            net.save_pretrained(folder, **how)
    finally:
        logging.set_verbosity(level)
        logging.enable_progress_bar()
    return str(folder)


@cache
def folder(kind: str, task: str, seed: int = 0) -> str:
    """The folder of the network of `network`, one for each process."""
    return saved(network(kind, task, seed, **({"num_labels": 3} if "class" in task else {})), mkdtemp())
