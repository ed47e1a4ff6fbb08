"""The arrays that cross from package to package."""

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
"""One image, shape `(height, width, channels)`."""

Logits = npt.NDArray[np.float32]
"""A model's output, shape `(n, num_labels)`, or `(num_labels,)` for one image."""
