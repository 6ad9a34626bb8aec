"""The exceptions of sublevel.

Every message names the value, what is allowed, and where. The command line prints it as one line and exits with
code 2; in Python it is an ordinary exception.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from difflib import get_close_matches


class SublevelError(Exception):
    """Base of every error that sublevel raises on purpose."""


class ConfigError(SublevelError):
    """Invalid study, recipe or option: unknown key, wrong unit, impossible value."""


class DataError(SublevelError):
    """A data source is missing, damaged, or does not match the study."""


class ModelError(SublevelError):
    """A network cannot be built, or does not fit the data."""


class StoreError(SublevelError):
    """A store cannot be read or written: another version, a full or read-only disk."""


class DamagedEntry(StoreError):
    """A stored object is damaged: its bytes do not match its digest."""

    def __init__(self, message: str, digest: str = "") -> None:
        super().__init__(message)
        self.digest = digest


class Diverged(SublevelError):
    """The loss of a training became infinite or NaN."""


def check_working_folder() -> None:
    """Raise ConfigError if the working folder was deleted: importing torch would end the process."""
    try:
        os.getcwd()
    except OSError as error:
        why = "was deleted" if isinstance(error, FileNotFoundError) else f"cannot be used ({error.strerror})"
        raise ConfigError(f"the working folder {why}: change to another one (cd) and try again") from None


def kind_and_text(error: BaseException) -> str:
    """``ValueError: its text`` of an error of own code, whose ``__str__`` may fail.

    >>> kind_and_text(ValueError("no")), kind_and_text(AssertionError())
    ('ValueError: no', 'AssertionError')
    """
    try:
        text = str(error)
    except (Exception, SystemExit):
        text = "its text cannot be shown"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def nearest(got: str, allowed: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest allowed word, or the list of allowed words.

    >>> nearest("lenet300", ["lenet-300-100", "conv-2"])
    "; did you mean 'lenet-300-100'?"
    >>> nearest("zzz", ["b", "a"])
    '; allowed: a, b'
    """
    words = sorted(allowed)
    close = get_close_matches(got, words, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; allowed: {', '.join(words)}" if words else ""


def unknown(kind: str, got: str, allowed: Iterable[str], where: str = "") -> ConfigError:
    """The error for an unknown name: ``unknown model 'x' (model.name); did you mean 'y'?``."""
    at = f" ({where})" if where else ""
    return ConfigError(f"unknown {kind} {got!r}{at}{nearest(got, allowed)}")
