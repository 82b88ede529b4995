"""
Serve a checkpoint over HTTP: recommendations from histories, and live sessions.

    hf-seqrec serve runs/ml-1m --port 8000
    curl -X POST localhost:8000/recommend -H "Content-Type: application/json" -d '{"history": ["1193", "661"]}'

/docs shows all requests. There is no authentication. Needs the extra `serve` (FastAPI).
"""

import gc
from collections.abc import Sequence
from pathlib import Path

import torch
import uvicorn

from ..argument_parser import CommandParser
from ..inference.recommender import Recommender
from ..serving.server import ServerOptions, create_app
from .options import add_address, add_checkpoint, check_address, check_device


def main(command_line: Sequence[str] | None = None) -> None:
    """Parse the command line and serve until stopped."""
    defaults = ServerOptions()
    parser = CommandParser("hf-seqrec serve", __doc__ or "")
    add_checkpoint(parser)
    add_address(parser, 8000)
    parser.add_argument(
        "--max_sessions",
        type=int,
        default=defaults.max_sessions,
        help="Most live sessions; the least recently used make room.",
    )
    parser.add_argument("--sessions_file", type=Path, help="Restore sessions from it, and save them at the end.")
    parser.add_argument(
        "--max_body_bytes", type=int, default=defaults.max_body_bytes, help="Refuse larger requests (413)."
    )
    parser.add_argument(
        "--max_batch", type=int, default=defaults.max_batch, help="Most requests that are computed together."
    )
    parser.add_argument(
        "--max_wait_ms", type=float, default=defaults.max_wait_ms, help="How long a request waits for others."
    )
    parser.add_argument(
        "--max_waiting", type=int, default=defaults.max_waiting, help="Most waiting requests; more are refused (503)."
    )
    parser.add_argument("--threads", type=int, default=1, help="Threads of torch; more pay off for large catalogs.")
    parser.add_argument("--device", default="cpu", help="Where the model runs, such as cuda.")
    parser.add_argument(
        "--log_level", default="info", choices=["error", "warning", "info", "debug"], help="What to log."
    )
    arguments = parser.parse_args(command_line)
    if arguments.threads < 1:
        raise ValueError(f"`--threads` must be at least 1, got {arguments.threads}.")
    check_address(arguments.host, arguments.port)
    check_device(arguments.device)

    torch.set_num_threads(arguments.threads)
    options = ServerOptions(**{name: getattr(arguments, name) for name in vars(defaults)})
    recommender = Recommender.from_pretrained(arguments.checkpoint, arguments.revision)
    recommender.model.to(arguments.device)
    app = create_app(recommender, options)
    # What is loaded stays. Collecting garbage would go through all of it, a third of a second each time.
    gc.collect()
    gc.freeze()
    try:
        uvicorn.run(app, host=arguments.host, port=arguments.port, log_level=arguments.log_level, access_log=False)
    finally:
        # Libraries that count their leaks at the end would count all of it.
        gc.unfreeze()
