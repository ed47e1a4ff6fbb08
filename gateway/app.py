"""Composition root: what the service is made of. Read this first."""

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

from starlette.routing import Router
from starlette.types import ASGIApp

from gateway import __version__
from gateway.auth.tokens import TokensFile
from gateway.classification.classifier import ImageClassifier
from gateway.http.cors import Cors
from gateway.http.middleware import BrowserRequests, ErrorAnswers, NormalPaths, RequestTelemetry
from gateway.http.routes import ROUTES
from gateway.http.state import State
from gateway.models.directory import ModelDirectory
from gateway.models.loading import ModelLoader
from gateway.observability.logs import log
from gateway.observability.metrics import Metrics
from gateway.settings import Settings
from gateway.triton.client import TritonClient
from gateway.triton.inference import Inference
from gateway.triton.shared_memory import SharedMemory


def create_app(settings: Settings) -> ASGIApp:
    """The ASGI application. No connection is opened before its lifespan starts.

    Raises:
        TokensError: The file of tokens cannot be used.
    """
    metrics = Metrics()
    tokens = None if settings.tokens_file is None else TokensFile(settings.tokens_file)

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[State]:
        async with _state(settings, metrics, tokens) as state:
            log.info("version %s, settings %s", __version__, settings)
            yield state

    # `NormalPaths` removes slashes at the end, so a redirect to a path with one would never end.
    router = Router(ROUTES, redirect_slashes=False, lifespan=lifespan)
    # `ErrorAnswers` turns any error into an answer, by the table in `gateway.errors`. The
    # middleware around it gives that answer an id and CORS headers too.
    answers = ErrorAnswers(NormalPaths(router), metrics)
    return RequestTelemetry(BrowserRequests(answers, Cors(answers)), metrics)


@asynccontextmanager
async def _state(
    settings: Settings, metrics: Metrics, tokens: TokensFile | None
) -> AsyncIterator[State]:
    """Everything that lives as long as the process, from startup to shutdown."""
    async with AsyncExitStack() as stack:
        triton = await stack.enter_async_context(TritonClient(settings.triton_url))
        shared_memory = None
        if settings.shared_memory_bytes:
            shared_memory = SharedMemory(triton.stub, settings.shared_memory_bytes)
            await stack.enter_async_context(aclosing(shared_memory))
        models = ModelDirectory(triton)
        loader = await stack.enter_async_context(
            aclosing(ModelLoader(settings, triton, models, metrics))
        )
        classifier = await stack.enter_async_context(
            aclosing(
                ImageClassifier(settings, Inference(triton, shared_memory), models, loader, metrics)
            )
        )
        parsing_thread = ThreadPoolExecutor(1, thread_name_prefix="parse")
        stack.callback(parsing_thread.shutdown, cancel_futures=True)
        yield State(
            settings=settings,
            triton=triton,
            models=models,
            classifier=classifier,
            parsing_thread=parsing_thread,
            metrics=metrics,
            tokens=tokens,
        )
