"""What lives as long as the process; built in the lifespan of `gateway.app`."""

from concurrent.futures import Executor
from typing import TypedDict

from gateway.auth.tokens import TokensFile
from gateway.classification.classifier import ImageClassifier
from gateway.models.directory import ModelDirectory
from gateway.observability.metrics import Metrics
from gateway.settings import Settings
from gateway.triton.client import TritonClient


class State(TypedDict):
    """The value of `request.state`, and of `scope["state"]`."""

    settings: Settings
    triton: TritonClient
    models: ModelDirectory
    classifier: ImageClassifier
    parsing_thread: Executor
    """For bodies whose parsing would block the event loop."""
    metrics: Metrics
    tokens: TokensFile | None
