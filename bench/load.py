"""A load generator: POST one picture again and again, each time with different bytes.

    python -m bench.load URL PICTURE --concurrency 32 --seconds 5
    python -m bench.load URL PICTURE --rate 200 --seconds 5

With `--concurrency`, each client sends its next request after its answer (closed loop). With
`--rate`, requests are sent at fixed times, whether earlier ones are answered or not (open loop),
and latency counts from the time a request was due. It speaks plain HTTP/1.1 over kept connections,
costs little CPU, and reports how much. `--processes` shares the clients out to several processes,
for a server that answers more than one process can ask. Prints JSON.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import count
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import uvloop

from gateway.runtime.process import end_with_parent

# Appended behind the end of the JPEG or PNG, which decoders ignore: no cache has seen the image.
_SUFFIX_BYTES: Final = 8
# Most requests of an open loop without an answer; with more, the server cannot keep up.
_MAX_UNDER_WAY: Final = 2000
_GIVE_UP_S: Final = 60.0


class Connection(asyncio.Protocol):
    """One kept connection, one request at a time."""

    def __init__(self) -> None:
        self._buffer = b""
        self._left = -1
        self._status = 0
        self._answer: asyncio.Future[int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport, to send requests on it."""
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # TCP's

    def send(self, parts: list[bytes]) -> "asyncio.Future[int]":
        """Send a request; the future's result is the status of the answer."""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.writelines(parts)
        return self._answer

    def data_received(self, data: bytes) -> None:
        """Count the answer's bytes down to its end."""
        if self._left < 0:
            self._buffer += data
            head, found, rest = self._buffer.partition(b"\r\n\r\n")
            if not found:
                return
            self._status = int(head[9:12])
            lower = head.lower()
            at = lower.index(b"content-length:") + 15
            self._left = int(lower[at:].partition(b"\r\n")[0]) - len(rest)
            self._buffer = b""
        else:
            self._left -= len(data)
        if self._left <= 0 and self._answer is not None:
            self._left = -1
            self._answer.set_result(self._status)

    def connection_lost(self, exc: Exception | None) -> None:
        """A request under way fails."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionError("the server closed the connection"))


class Load:
    """One run against one URL."""

    def __init__(self, url: str, picture: bytes) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        length = len(picture) + _SUFFIX_BYTES
        self._head = (
            f"POST {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            f"Content-Type: image/jpeg\r\nContent-Length: {length}\r\n\r\n"
        ).encode()
        self._picture = picture
        self._numbers = count(int.from_bytes(os.urandom(4)) << 24)
        self.latencies_s: list[float] = []
        self.errors = 0

    async def connect(self) -> Connection:
        """A new connection."""
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, self._host, self._port)
        return connection

    async def post(self, connection: Connection, due: float) -> None:
        """One request; its latency counts from `due`."""
        suffix = next(self._numbers).to_bytes(_SUFFIX_BYTES)
        try:
            status = await connection.send([self._head, self._picture, suffix])
        except OSError:
            status = 0
        if status == 200:
            self.latencies_s.append(perf_counter() - due)
        else:
            self.errors += 1

    async def closed(self, concurrency: int, seconds: float, requests: int | None) -> None:
        """Run `concurrency` clients until the time is over or all requests are sent."""
        end = perf_counter() + seconds
        left = requests if requests is not None else 1 << 62

        async def client() -> None:
            nonlocal left
            connection = await self.connect()
            while left > 0 and (now := perf_counter()) < end:
                left -= 1
                await self.post(connection, now)

        await asyncio.gather(*(client() for _ in range(concurrency)))

    async def open(self, rate: float, seconds: float) -> None:
        """Send `rate` requests a second; if no connection is free, open another one."""
        idle: deque[Connection] = deque()
        start = perf_counter()
        tasks: set[asyncio.Task[None]] = set()

        async def one(due: float) -> None:
            connection = idle.popleft() if idle else await self.connect()
            await self.post(connection, due)
            idle.append(connection)

        for n in range(int(rate * seconds)):
            due = start + n / rate
            await asyncio.sleep(max(0.0, due - perf_counter()))
            if len(tasks) >= _MAX_UNDER_WAY:
                self.errors += 1
                continue
            task = asyncio.create_task(one(due))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        if tasks:
            await asyncio.wait(tasks, timeout=_GIVE_UP_S)
        self.errors += len(tasks)


def quantile(values: list[float], share: float) -> float:
    """The value below which that share of the sorted values lies; NaN for none."""
    if not values:
        return float("nan")
    return values[min(len(values) - 1, int(share * len(values)))]


class Outcome(NamedTuple):
    """What one process has measured."""

    seconds: float
    latencies_s: list[float]
    errors: int
    cpu_s: float


def shares(clients: int, processes: int) -> list[int]:
    """Clients of each process: as even as possible, and no process without one."""
    least, more = divmod(clients, processes)
    return [n for n in (least + (i < more) for i in range(processes)) if n]


def report(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The figures of all processes together."""
    answered = sorted(latency for outcome in outcomes for latency in outcome.latencies_s)
    cpu_s = sum(outcome.cpu_s for outcome in outcomes)
    return {
        "seconds": max(outcome.seconds for outcome in outcomes),
        "answered": len(answered),
        "errors": sum(outcome.errors for outcome in outcomes),
        # The processes start within milliseconds of each other: each has its own time.
        "requests_per_s": sum(len(o.latencies_s) / o.seconds for o in outcomes),
        "p50_ms": quantile(answered, 0.5) * 1000,
        "p99_ms": quantile(answered, 0.99) * 1000,
        "own_cpu_ms_per_request": cpu_s * 1000 / max(1, len(answered)),
    }


def _run(options: argparse.Namespace, clients: int | None) -> Outcome:
    """Run the load of this process: that many clients, or an open loop."""
    load = Load(options.url, options.picture.read_bytes())
    start, cpu = perf_counter(), process_time()
    if clients is None:
        uvloop.run(load.open(options.rate, options.seconds))
    else:
        uvloop.run(load.closed(clients, options.seconds, options.requests))
    return Outcome(perf_counter() - start, load.latencies_s, load.errors, process_time() - cpu)


def _run_in_processes(options: argparse.Namespace, clients: list[int]) -> list[Outcome]:
    # A forked process starts within milliseconds; this one has no threads yet.
    fork = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(len(clients), fork, initializer=end_with_parent) as pool:
        return list(pool.map(partial(_run, options), clients))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Load one URL.")
    parser.add_argument("url")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--requests", type=int)
    parser.add_argument("--processes", type=int, default=1, help="for --concurrency only")
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--concurrency", type=int)
    kind.add_argument("--rate", type=float)
    options = parser.parse_args()
    if options.processes > 1 and (options.rate is not None or options.requests is not None):
        parser.error("--processes shares out --concurrency; it goes with --seconds alone")
    return options


def main() -> None:
    """Run one load and print its figures."""
    options = _parse()
    if options.processes > 1:
        outcomes = _run_in_processes(options, shares(options.concurrency, options.processes))
    else:
        outcomes = [_run(options, options.concurrency)]
    print(json.dumps(report(outcomes)))


if __name__ == "__main__":
    main()
