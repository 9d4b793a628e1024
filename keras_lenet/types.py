"""Types that annotations name."""

from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]
Logs = dict[str, Any]
# Keras tensors have another class on every backend, and none is a common base.
Tensor = Any
