"""
The HTTP server under load: concurrent clients on the loopback interface, and whether each is told its own answers.

    python benchmarks/serve_load.py [--checkpoint runs/ml-1m] [--clients 50] [--seconds 60] [--json serve_load.json]

The server is a process of its own (`hf-seqrec serve`). Every client keeps one connection and one session,
and sends its next request when the last is answered: half of them an event with recommendations, a quarter
recommendations from the session, a quarter recommendations from a history of 10 to 50 items. Afterwards a
`Recommender` in this process goes by what each answer should have gone by: another user's would be other items.
Clients and server share the machine. Without a checkpoint the model is made up: Mamba4Rec with two layers and random
weights, 3,416 items.
"""

import argparse
import asyncio
import gc
import json
import os
import platform
import random
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch
import transformers
from live_session import make_recommender

from hf_seqrec import Recommender

# Float32 rounds differently from batch to batch: of scores that are closer than this, either may come first.
_TIE = 1e-5


@dataclass
class Client:
    """One user: what was asked, what was answered, and how long it took."""

    user: str
    ids: list[str]
    rng: random.Random
    history: list[str] = field(default_factory=list)
    # Kind of request, the items it went by, the answer.
    told: list[tuple[str, tuple[str, ...], list[dict[str, Any]]]] = field(default_factory=list)
    seconds: dict[str, list[float]] = field(default_factory=lambda: {"events": [], "session": [], "history": []})
    errors: list[str] = field(default_factory=list)

    async def run(self, port: int, deadline: float) -> None:
        """Send one request after the other until the time is up."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.perf_counter() < deadline:
            kind = self.rng.choice(["events", "events", "session", "history"])
            method, path, body = self.next_request(kind)
            start = time.perf_counter()
            status, answer = await exchange(reader, writer, method, path, body)
            self.seconds[kind].append(time.perf_counter() - start)
            if status != 200:
                self.errors.append(f"{method} {path}: {status} {answer}")
                continue
            if kind == "events":
                self.history += body["item_ids"]
            went_by = body["history"] if kind == "history" else self.history
            if kind != "history" and answer["events"] != len(self.history):
                self.errors.append(f"{path} has {answer['events']} events, {len(self.history)} were sent")
            if went_by:
                self.told.append((kind, tuple(went_by), answer["recommendations"]))
        writer.close()
        await writer.wait_closed()

    def next_request(self, kind: str) -> tuple[str, str, dict[str, Any]]:
        """Make up a request: method, path and body."""
        if kind == "session":
            return "GET", f"/sessions/{self.user}/recommendations?top_k=10", {}
        if kind == "events":
            return "POST", f"/sessions/{self.user}/events", {"item_ids": [self.rng.choice(self.ids)], "top_k": 10}
        return "POST", "/recommend", {"history": self.rng.choices(self.ids, k=self.rng.randint(10, 50)), "top_k": 10}


async def exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, method: str, path: str, body: dict[str, Any]
) -> tuple[int, Any]:
    """Send one request over a connection that stays open, and read the answer: status and JSON."""
    content = json.dumps(body).encode() if body else b""
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
    length = next(int(line.split(":")[1]) for line in lines if line.startswith("content-length:"))
    return int(lines[0].split()[1]), json.loads(await reader.readexactly(length))


@contextmanager
def serving(checkpoint: str, arguments: argparse.Namespace) -> Iterator[int]:
    """Run the server, and give its port once it answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "hf_seqrec.serving.server",
        checkpoint,
        "--port",
        str(port),
        "--log_level",
        "warning",
    ]
    command += ["--max_batch", str(arguments.max_batch), "--max_wait_ms", str(arguments.max_wait_ms)]
    server = subprocess.Popen([*command, "--threads", str(arguments.threads)])
    try:
        while True:
            if server.poll() is not None:
                raise RuntimeError(f"The server has stopped with status {server.returncode}.")
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except urllib.error.URLError:
                time.sleep(0.2)
        yield port
    finally:
        server.terminate()
        server.wait(30)


def mixed_up(recommender: Recommender, clients: list[Client], most: int) -> tuple[int, int]:
    """Count how many answers were checked against this process, and how many are not what it says."""
    told = [answer for client in clients for answer in client.told]
    told = random.Random(0).sample(told, min(most, len(told)))
    expected = recommender.recommend_many([went_by for _, went_by, _ in told], top_k=10)
    wrong = 0
    for (_, _, found), answer in zip(told, expected, strict=True):
        pairs = list(zip(found, answer.recommendations, strict=True))
        scale = max(abs(best.score) for best in answer.recommendations)
        same_items = all(
            best["item_id"] == mine.item_id or abs(best["score"] - mine.score) < _TIE * scale for best, mine in pairs
        )
        same_scores = all(abs(best["score"] - mine.score) < 1e-3 * scale for best, mine in pairs)
        wrong += not (same_items and same_scores)
    return len(told), wrong


def measure(checkpoint: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Load the server, then check what it said."""
    recommender = Recommender.from_pretrained(checkpoint)
    ids = recommender.catalog.item_ids.to_pylist()
    clients = [Client(f"user-{number}", ids, random.Random(number)) for number in range(arguments.clients)]

    async def load(port: int) -> float:
        # A first request compiles what has to be compiled.
        warm = Client("warm", ids, random.Random(-1))
        await warm.run(port, time.perf_counter() + 2)
        # So that a client's latency is not that of its own garbage collection.
        gc.collect()
        gc.freeze()
        gc.disable()
        start = time.perf_counter()
        await asyncio.gather(*(client.run(port, start + arguments.seconds) for client in clients))
        elapsed = time.perf_counter() - start
        gc.enable()
        gc.unfreeze()
        return elapsed

    with serving(checkpoint, arguments) as port:
        elapsed = asyncio.run(load(port))
    checked, wrong = mixed_up(recommender, clients, arguments.checked)
    kinds = {kind: [value for client in clients for value in client.seconds[kind]] for kind in clients[0].seconds}
    everything = [value for values in kinds.values() for value in values]
    errors = [error for client in clients for error in client.errors]
    return {
        "model": recommender.model.config.model_type,
        "layers": recommender.model.config.num_hidden_layers,
        "items": recommender.catalog.n_items,
        "clients": arguments.clients,
        "seconds": elapsed,
        "requests": len(everything),
        "requests_per_second": len(everything) / elapsed,
        "latency": {kind: percentiles(values) for kind, values in {"all": everything, **kinds}.items()},
        "errors": len(errors),
        "first_errors": errors[:5],
        "answers_checked": checked,
        "answers_of_others": wrong,
        "longest_session": max(len(client.history) for client in clients),
    }


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Summarise in milliseconds."""
    return {name: float(np.percentile(seconds, q)) * 1e3 for name, q in (("p50_ms", 50), ("p99_ms", 99))}


def print_result(result: dict[str, Any]) -> None:
    """Print what was measured."""
    load = ", ".join(f"{value:.1f}" for value in result["load_average"])
    print(
        f"{result['model']}, {result['layers']} layers, {result['items']:,} items; {result['clients']} clients for "
        f"{result['seconds']:.0f} s; {result['processors']} processors, load average before {load}"
    )
    print(f"{result['requests']:,} requests, {result['requests_per_second']:.0f} a second, {result['errors']} errors")
    for kind, latency in result["latency"].items():
        print(f"    {kind:10} p50 {latency['p50_ms']:7.1f} ms    p99 {latency['p99_ms']:7.1f} ms")
    print(f"{result['answers_checked']:,} answers checked, {result['answers_of_others']} are not what they should be")
    for error in result["first_errors"]:
        print(error)


def main() -> None:
    """Measure and print; exit with 1 after an error or a wrong answer."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--checkpoint", help="Serve this instead of a made-up model.")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--checked", type=int, default=5_000, help="How many answers to check, of all.")
    parser.add_argument("--items", type=int, default=3416)
    parser.add_argument("--max_batch", type=int, default=64)
    parser.add_argument("--max_wait_ms", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=1, help="The server's torch threads.")
    parser.add_argument("--json", type=Path, help="also write the result here")
    arguments = parser.parse_args()
    result: dict[str, Any] = {
        "threads": arguments.threads,
        "max_batch": arguments.max_batch,
        "max_wait_ms": arguments.max_wait_ms,
        "processors": os.cpu_count(),
        "machine": platform.machine(),
        # Of the last 1, 5 and 15 minutes, before the measurement: above the number of processors, others were at work.
        "load_average": os.getloadavg(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    with tempfile.TemporaryDirectory() as folder:
        if arguments.checkpoint is None:
            made_up = make_recommender("mamba4rec", arguments.items)
            made_up.model.save_pretrained(folder)
            made_up.catalog.save(folder)
        result |= measure(arguments.checkpoint or folder, arguments)
    print_result(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    if result["errors"] or result["answers_of_others"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
