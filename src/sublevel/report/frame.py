"""How this package names a data frame to a type checker.

Published types of pandas make ``frame["x"]`` a union of everything that indexing can give, so that honest
code needs a cast at every turn. Frames are therefore dynamic to the checker, and everything else is checked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import pandas as pd

if TYPE_CHECKING:
    Frame: TypeAlias = Any
    Column: TypeAlias = Any
else:
    Frame: TypeAlias = pd.DataFrame
    Column: TypeAlias = pd.Series

Tables: TypeAlias = dict[str, Frame]
"""Tables by name."""
