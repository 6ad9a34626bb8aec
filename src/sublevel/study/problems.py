"""Where a problem is computed, and whose code it runs."""

from __future__ import annotations

from typing import Any

import torch

from sublevel.errors import ConfigError


def device_for(asked: str, fallback: str = "cpu") -> str:
    """The device that ``auto`` means here, or the one asked for; ConfigError where it cannot be used."""
    if asked != "auto":
        try:
            torch.zeros(1, device=asked)
        except (RuntimeError, AssertionError) as error:
            raise ConfigError(f"device {asked!r} cannot be used: {str(error).splitlines()[0]}") from None
        return asked
    return "cuda" if torch.cuda.is_available() else fallback


def is_own(code: Any) -> bool:
    """Whether a loss or a loop is code of the user's own."""
    return callable(code) or ":" in str(code)
