"""What lives as long as the process; built in the lifespan of `gateway.app`."""

from typing import TypedDict

from gateway.classifier import ImageClassifier
from gateway.deadlines import Deadlines
from gateway.metrics import Metrics
from gateway.models import ModelDirectory
from gateway.settings import Settings
from gateway.tokens import TokensFile
from gateway.triton import TritonClient


class State(TypedDict):
    """A request finds it under `request.state`."""

    settings: Settings
    triton: TritonClient
    models: ModelDirectory
    classifier: ImageClassifier
    deadlines: Deadlines
    metrics: Metrics
    tokens: TokensFile | None
