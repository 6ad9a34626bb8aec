"""Pretrained transformers from a local folder, as ``hf:FOLDER``.

The folder holds ``config.json`` and safetensors, in one file or in shards with an index, as ``save_pretrained`` writes
them. The package ``transformers`` builds the network and reads the weights. It runs no code of the folder, loads no
adapter and uses no network connection.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from logging import CRITICAL
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sublevel.errors import ConfigError, DataError, ModelError, nearest, unknown
from sublevel.foreign import read_json

PREFIX = "hf:"

TASKS = {"sequence-classification": ("ForSequenceClassification",), "causal-lm": ("ForCausalLM", "LMHeadModel")}
"""The tasks, and how the names of their networks end."""

AUTO = {"sequence-classification": "AutoModelForSequenceClassification", "causal-lm": "AutoModelForCausalLM"}
WEIGHTS = ("folder", "random")
RESERVED = ("quantization_config", "auto_map", "architectures", "model_type", "use_cache", "dtype", "torch_dtype")
FAILURES = (ValueError, OSError, RuntimeError, KeyError, ImportError, AttributeError, TypeError)
FILES = ("model.safetensors", "model.safetensors.index.json")
INERT = (
    "architectures", "bos_token_id", "chunk_size_feed_forward", "dtype", "eos_token_id", "finetuning_task", "id2label",
    "initializer_range", "label2id", "output_attentions", "output_hidden_states", "problem_type", "return_dict",
    "task_specific_params", "tokenizer_class", "torch_dtype", "transformers_version", "use_cache",
)  # fmt: skip
"""Keys of a configuration that do not change the logits in evaluation mode."""

FRESH = "_sublevel_fresh"
"""The attribute with the names of weights that the folder lacks."""


def is_pretrained(model: object) -> bool:
    """Whether a network is named by a folder.

    >>> is_pretrained("hf:runs/bert"), is_pretrained("my_nets:net")
    (True, False)
    """
    return isinstance(model, str) and model.startswith(PREFIX)


def folder_of(name: str) -> Path:
    """The folder of ``hf:FOLDER``."""
    return Path(name.removeprefix(PREFIX)).expanduser()


def task_of(name: str, options: Mapping[str, Any] | None = None) -> str:
    """The task of a folder: the option ``task``, or the task of the network that was saved.

    Raises ModelError for a folder whose network has another task, or none.
    """
    return _task(folder_of(name), _config(folder_of(name)), (options or {}).get("task"))


def build(name: str, *, classes: int = 0, complete: bool = False, **options: Any) -> nn.Module:
    """The network of ``hf:FOLDER`` with the folder's weights, in float32 (or float64, if it was saved so).

    Options: ``task`` (`TASKS`; default: that of the saved network), ``weights`` (``folder``, or ``random`` for the
    initial weights of a training from scratch), and any key of the network's configuration, such as ``pad_token_id``
    or ``attn_implementation`` (``sdpa`` or ``eager``). If the saved network has no classification head, it is drawn
    from torch's generator, for ``classes`` classes unless ``num_labels`` is given; ``complete`` refuses that.

    Raises ConfigError for an unknown option. Raises ModelError for a folder that is incomplete, holds an adapter or
    quantised weights, needs code of its own, or lacks weights of the network's body.
    """
    folder = folder_of(name)
    document = _config(folder)
    task = _task(folder, document, options.pop("task", None))
    weights = options.pop("weights", "folder")
    if weights not in WEIGHTS:
        raise unknown("weights", str(weights), WEIGHTS, f"model {name}")
    if weights == "folder":
        _check_weights(folder)
    attention = options.pop("attn_implementation", "sdpa")
    if attention not in ("sdpa", "eager"):
        raise unknown("attn_implementation", str(attention), ("sdpa", "eager"), f"model {name}")
    saved = any(str(each).endswith(TASKS[task]) for each in document.get("architectures") or ())
    if task == "sequence-classification" and not saved and classes:
        options.setdefault("num_labels", classes)
    from safetensors import SafetensorError

    with _quiet() as transformers:
        _check_known(name, document)
        try:
            config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except FAILURES as error:
            raise ModelError(f"{name} cannot be read: {_line(error)}") from error
        for key, value in options.items():
            if key in RESERVED or key.startswith("_") or not hasattr(config, key):
                allowed = [key for key in config.to_dict() if key not in RESERVED and not key.startswith("_")]
                raise ConfigError(f"unknown option {key!r} (model {name}){nearest(key, ['task', 'weights', *allowed])}")
            setattr(config, key, value)
        auto = getattr(transformers, AUTO[task])
        dtype = torch.float64 if str(document.get("dtype", document.get("torch_dtype"))) == "float64" else torch.float32
        config.use_cache = False
        how = {"config": config, "dtype": dtype, "attn_implementation": attention, "trust_remote_code": False}
        try:
            if weights == "random":
                net = auto.from_config(**how)
            else:
                net, about = auto.from_pretrained(
                    folder, local_files_only=True, use_safetensors=True, output_loading_info=True, **how
                )
        except (*FAILURES, SafetensorError) as error:
            misfit = "the weights do not fit config.json: a tensor has another shape"
            raise ModelError(
                f"{name} cannot be read: {misfit if 'mismatched_sizes' in str(error) else _line(error)}"
            ) from error
    for key, parameter in net.named_parameters():
        if not bool(parameter.isfinite().all()):
            raise ModelError(f"{name}: the weight {key!r} is not finite")
    if weights == "folder":
        setattr(net, FRESH, _fresh(name, net, about, saved=saved, complete=complete))
    return net.train()


def fresh_weights(net: nn.Module) -> tuple[str, ...]:
    """The weights of a network that its folder lacks, so that they were drawn."""
    return getattr(net, FRESH, ())


def opened(source: Path, network: nn.Module, options: Mapping[str, Any]) -> nn.Module | None:
    """The network of a checkpoint that lies beside its configuration, with the ``options`` of ``network``; else None.

    Raises ModelError if it is another function than ``network`` of the same tensors, such as one with more heads.
    """
    if source.name in FILES:
        source = source.parent
    if not (source / "config.json").is_file():
        return None
    found = build(f"{PREFIX}{source}", complete=True, **{k: v for k, v in options.items() if k != "weights"})
    theirs, own = _settings(found), _settings(network)
    for key in sorted(theirs.keys() | own.keys()):
        if theirs.get(key) != own.get(key):
            raise ModelError(
                f"{source / 'config.json'} has {key} = {theirs.get(key)!r}, the network {own.get(key)!r}: that is "
                "another function of the same tensors; compare checkpoints of one configuration"
            )
    return found


def _settings(net: Any) -> dict[str, Any]:
    """The keys of a network's configuration that its function in evaluation mode may depend on."""
    found = net.config.to_dict()
    return {k: v for k, v in found.items() if k not in INERT and "drop" not in k and not k.startswith("_")}


def check_tokens(net: Any, x: Any) -> None:
    """Raise DataError for tokens in a tensor that the network's vocabulary does not have."""
    size = getattr(net.config, "vocab_size", None)
    if size is not None and isinstance(x, torch.Tensor) and x.dtype == torch.int64 and x.numel():
        low, high = int(x.min()), int(x.max())
        if low < 0 or high >= size:
            raise DataError(f"the inputs have the token {low if low < 0 else high}; the network has 0..{size - 1}")


def fingerprint(net: Any) -> dict[str, Any]:
    """The class and the configuration of a network; its weights are fingerprinted apart."""
    import transformers

    known = {k: v for k, v in net.config.to_diff_dict().items() if k not in ("_name_or_path", "transformers_version")}
    text = json.dumps(known, sort_keys=True, default=str)
    return {
        "class": f"{type(net).__module__}:{type(net).__qualname__}",
        "config": hashlib.sha256(text.encode()).hexdigest(),
        "attention": net.config._attn_implementation,
        "transformers": transformers.__version__,
    }


def _config(folder: Path) -> dict[str, Any]:
    """The configuration of a folder. Raises ModelError if it is absent or unsupported."""
    if not folder.is_dir():
        raise ModelError(f"{PREFIX}{folder}: there is no such folder; download a model of the Hub first")
    if (folder / "adapter_config.json").exists():
        raise ModelError(
            f"{folder} holds an adapter (LoRA), which is no network of its own: merge it where you have peft, "
            "model.merge_and_unload().save_pretrained('merged'), and name that folder"
        )
    try:
        document = read_json(folder / "config.json")
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{folder} has no config.json that can be read ({_line(error)}): expected a folder as "
            "model.save_pretrained(folder) writes it"
        ) from None
    if not isinstance(document, dict):
        raise ModelError(f"{folder / 'config.json'} holds {type(document).__name__}; expected an object")
    if document.get("quantization_config"):
        raise ModelError(
            f"{folder} holds quantised weights, which have no Hessian: load the network with dtype=torch.float32 from "
            "its weights before quantisation, and save that"
        )
    return document


def _check_known(name: str, document: Mapping[str, Any]) -> None:
    """Refuse a kind of network that the installed package does not know."""
    from transformers.models.auto.configuration_auto import (
        CONFIG_MAPPING_NAMES,  # pyright: ignore[reportPrivateImportUsage]
    )

    kind = document.get("model_type")
    if kind not in CONFIG_MAPPING_NAMES:
        own = ": its network is code in the folder (auto_map), which is never run" if document.get("auto_map") else ""
        raise ModelError(f"{name} is of the type {kind!r}, which the installed transformers does not know{own}")


def _task(folder: Path, document: Mapping[str, Any], asked: object) -> str:
    saved = [str(each) for each in document.get("architectures") or ()]
    if asked is not None:
        if asked not in TASKS:
            raise unknown("task", str(asked), TASKS, f"model {PREFIX}{folder}")
        return str(asked)
    for task, endings in TASKS.items():
        if any(each.endswith(endings) for each in saved):
            return task
    raise ModelError(
        f"{folder} holds {', '.join(saved) or 'a network without a name'}; name its task: "
        f"options={{'task': {' or '.join(map(repr, TASKS))}}} (--set 'model.options.task=\"causal-lm\"')"
    )


def _check_weights(folder: Path) -> None:
    """Refuse a folder without safetensors, or with a shard missing or outside it."""
    for index in folder.glob("*.safetensors.index.json"):
        try:
            places = {str(file) for file in read_json(index)["weight_map"].values()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise ModelError(f"{index} is no index of shards: expected a JSON object with 'weight_map'") from None
        for file in sorted(places):
            if Path(file).name != file:
                raise ModelError(f"{index} names the shard {file!r}; a shard lies in the folder of its index")
            if not (folder / file).is_file():
                raise ModelError(f"{index} names the shard {file}, which is missing: copy it into {folder}")
        return
    if list(folder.glob("*.safetensors")):
        return
    if list(folder.glob("*.bin")):
        raise ModelError(
            f"{folder} holds its weights as a pickle (*.bin): write them as safetensors, where you trust it, by "
            "model.save_pretrained(folder)"
        )
    raise ModelError(f"{folder} holds no *.safetensors; options={{'weights': 'random'}} draws initial weights instead")


def _fresh(name: str, net: Any, about: Mapping[str, Any], *, saved: bool, complete: bool) -> tuple[str, ...]:
    """The names of the weights that were drawn. Raises ModelError where the network would be another function."""
    body = f"{net.base_model_prefix}."
    missing, extra = _names(about["missing_keys"]), _names(about["unexpected_keys"])
    if about.get("mismatched_keys") or about.get("error_msgs"):
        wrong = [*map(str, about.get("mismatched_keys", ())), *map(str, about.get("error_msgs", ()))]
        raise ModelError(f"{name}: the weights do not fit the network: {wrong[0]}")
    lost = [each for each in missing if saved or complete or each.startswith(body)]
    if lost:
        others = f" (and {len(lost) - 1} more)" if len(lost) > 1 else ""
        raise ModelError(f"{name} lacks the weight {lost[0]!r}{others}, which {type(net).__name__} has")
    more = [each for each in extra if saved or complete or each.startswith(body)]
    if more:
        others = f" (and {len(more) - 1} more)" if len(more) > 1 else ""
        raise ModelError(f"{name} has a weight {more[0]!r}{others}, which {type(net).__name__} lacks")
    return tuple(missing)


def _names(keys: Collection[Any]) -> list[str]:
    return sorted(str(key[0] if isinstance(key, tuple) else key) for key in keys)


@contextmanager
def _quiet() -> Iterator[Any]:
    """The package, without its reports and progress bars. Raises ModelError if it is not installed."""
    try:
        import transformers
        from transformers.utils import logging
    except ImportError as error:
        what = f"a model {PREFIX}FOLDER needs the package transformers"
        raise ModelError(f"{what}: pip install 'sublevel[transformers]'") from error
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(CRITICAL)
    logging.disable_progress_bar()
    try:
        yield transformers
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__
