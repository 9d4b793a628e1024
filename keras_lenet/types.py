"""Types for annotations."""

from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]
Logs = dict[str, Any]
# Each backend has its own class of tensors, without a common base class.
Tensor = Any
