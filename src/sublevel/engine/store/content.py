"""Bytes and their names: canonical JSON, SHA-256, tensors as safetensors."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from sublevel.foreign import check_size, load_json

Document = dict[str, Any]

DIGEST = re.compile(r"[0-9a-f]{64}")
"""The names of objects, entries and studies; checked before they become part of a path."""


def canonical(document: object) -> bytes:
    """JSON with sorted keys and no spaces: equal documents give equal bytes.

    >>> canonical({"b": 0.1, "a": [1, None]})
    b'{"a":[1,null],"b":0.1}'
    """
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def finite(value: Any) -> Any:
    """The value with null in place of nan and infinity, which JSON lacks; in a table null is an empty field."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    return [finite(v) for v in value] if isinstance(value, list | tuple) else value


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sealed(body: Document) -> bytes:
    """A document with its own checksum, as canonical JSON. ValueError where it is too large to be read again."""
    text = canonical({"body": body, "checksum": digest(canonical(body))})
    check_size(text)
    return text


def unsealed(data: bytes) -> Document | None:
    """The document from the output of `sealed`; None for other or damaged bytes."""
    try:
        document = load_json(data, numbers=False)
        body: Document = document["body"]
        whole = isinstance(body, dict) and document["checksum"] == digest(canonical(body))
    except (ValueError, KeyError, TypeError):
        return None
    return body if whole else None


def serialised(tensors: Mapping[str, Any]) -> bytes:
    """Named tensors as safetensors bytes. Tensors that share memory, which the format refuses, are copied."""
    from safetensors.torch import save

    plain: dict[str, Any] = {}
    storages: set[int] = set()
    for name, tensor in sorted(tensors.items()):
        t = tensor.detach().cpu().contiguous()
        plain[name] = t.clone() if t.untyped_storage().data_ptr() in storages else t
        storages.add(t.untyped_storage().data_ptr())
    return save(plain)
