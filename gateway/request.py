"""What a caller asks for, as plain data: HTTP makes it, classification uses it."""

from typing import Literal, NamedTuple

Activation = Literal["sigmoid", "softmax", "none"]

DEFAULT_TOP_K = 5


class Parameters(NamedTuple):
    """What the caller chooses about the answer."""

    function_to_apply: Activation | None = None
    """None: the model's own default."""
    top_k: int = DEFAULT_TOP_K
    """Number of labels, at least 1; more than the model has means all."""


class Options(NamedTuple):
    """How the request is served. The defaults are the hosted API's."""

    use_cache: bool = True
    """`x-use-cache`: answer from the cache, and keep the answer there."""
    wait_for_model: bool = False
    """`x-wait-for-model`: hold the request until the model is loaded."""
    load_model: bool = True
    """`x-load-model`: load the model if it is not loaded."""
    scale_up_timeout_s: float | None = None
    """`x-scale-up-timeout`: hold the request for so long at most, in seconds."""


class ClassificationRequest(NamedTuple):
    """One or more images, still encoded, and what is asked of them."""

    images: tuple[bytes, ...]
    parameters: Parameters = Parameters()
    options: Options = Options()
    is_list: bool = False
    """Whether `inputs` was a list. Then the answer is a list too, one element for each image."""
