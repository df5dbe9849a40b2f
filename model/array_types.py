"""Array types: numpy arrays by the kind of their numbers."""

from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.signedinteger[Any]]
Longs = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.floating[Any]]
Float16Array = npt.NDArray[np.float16]
Float32Array = npt.NDArray[np.float32]
