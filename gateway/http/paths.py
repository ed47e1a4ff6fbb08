"""URLs as clients write them: made into those of the route table, and what they ask about.

Pure.
"""

from typing import Final, NamedTuple

# What Hugging Face's router puts before every path.
_ROUTER_PREFIX: Final = "/hf-inference"
_MODELS: Final = "/models/"
_PIPELINE: Final = "/pipeline/"
_DEFAULT_MODEL: Final = frozenset({"/", "/predict", "/invocations"})


class Target(NamedTuple):
    """Who is to classify, by the URL."""

    template: str
    """The path with names in the place of what varies."""
    model_id: str | None
    """None means the default model."""
    task: str | None


def normalized(path: str) -> str:
    """The path of the route table for the path of a URL."""
    if path == _ROUTER_PREFIX or path.startswith(f"{_ROUTER_PREFIX}/"):
        path = path.removeprefix(_ROUTER_PREFIX)
    return path.rstrip("/") or "/"


def classification_target(path: str) -> Target | None:
    """What a POST to a `normalized` path classifies with; none if it is no such path."""
    if path in _DEFAULT_MODEL:
        return Target(path, None, None)
    if path.startswith(_MODELS):
        rest = path.removeprefix(_MODELS)
        model_id, found, task = rest.rpartition(_PIPELINE)
        if found and model_id and "/" not in task:
            return Target("/models/{model_id}/pipeline/{task}", model_id, task)
        return Target("/models/{model_id}", rest, None)
    if path.startswith(_PIPELINE):
        task, _, model_id = path.removeprefix(_PIPELINE).partition("/")
        if model_id:
            return Target("/pipeline/{task}/{model_id}", model_id, task)
        return Target("/pipeline/{task}", None, task)
    return None
