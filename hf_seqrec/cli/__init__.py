"""
The command `hf-seqrec`: its commands, each imported when it is called, and the one place where errors are printed.

A user's mistake is one line on stderr and exit code 2. A traceback is for our own faults, and for `--debug`.
"""

import difflib
import importlib
import io
import os
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .. import __version__
from ..installing import EXTRA_OF_MODULE, install_hint


class Command(NamedTuple):
    r"""
    A command, without what it imports.

    Fields:
        help (`str`): What it does, in one line.
        example (`str`): What to write behind its name.
    """

    help: str
    example: str


COMMANDS = {
    "build": Command("Build a dataset folder from a log or a public dataset.", "my-log.csv --output data/my-shop"),
    "extend": Command("Add new events to a dataset folder.", "yesterday.csv --output data/my-shop"),
    "train": Command("Train or fine-tune a recommender.", "--dataset my-log.csv --output_dir runs/my-shop"),
    "evaluate": Command("Measure a checkpoint on a dataset.", "runs/my-shop --dataset my-log.csv"),
    "recommend": Command("Recommend from a history or for a user.", "runs/my-shop --history 1193 661"),
    "adapt": Command("Give a checkpoint another catalog's items.", "runs/my-shop --catalog data/new --output new"),
    "convert": Command("Convert a checkpoint of the authors' code.", "SASRec.pth --output sasrec --item_ids rows"),
    "card": Command("Write the model cards of files of results.", "runs/my-shop/results.json"),
    "push": Command("Share a checkpoint, a dataset or a metric on the Hub.", "runs/my-shop org/my-shop"),
    "serve": Command("Serve a checkpoint over HTTP.", "runs/my-shop --port 8000"),
    "demo": Command("Try a checkpoint in the browser.", "runs/my-shop"),
    "index": Command("Build an approximate search index.", "runs/my-shop --kind hnsw"),
    "export-onnx": Command("Export a checkpoint to ONNX.", "runs/my-shop --output my-shop.onnx"),
    "endpoint": Command("Add what an Inference Endpoint needs.", "runs/my-shop"),
}

_USER_ERROR = 2
_INTERRUPTED = 130
# How long another process than the main one waits with its error: the launcher ends it if the main one fails too.
_SECONDS_FOR_MAIN = 2.0


def main(command_line: Sequence[str] | None = None) -> int:
    r"""
    Run a command and return its exit code: 0, 2 after a user's mistake, 1 after a fault of ours, 130 after Ctrl-C.

    Args:
        command_line (`Sequence[str]`, *optional*): The command and its arguments; by default the process's own.
    """
    words = list(sys.argv[1:] if command_line is None else command_line)
    debug = _take_debug(words)
    _print_what_the_console_can()
    try:
        return _run(words)
    except KeyboardInterrupt:
        if debug:
            traceback.print_exc()
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has enough of it, as in `| head`. Python would complain once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # noqa: BLE001  (it is printed)
        return _report(error, debug)


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if words[0] in ("-V", "--version"):
        print(f"hf-seqrec {__version__}")
        return 0
    name = words[0].replace("_", "-")
    if name not in COMMANDS:
        nearest = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.5)
        advice = f"Did you mean `{nearest[0]}`?" if nearest else "`hf-seqrec --help` lists them."
        raise ValueError(f"there is no command {words[0]!r}. {advice}")
    module = importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
    module.main(words[1:])
    return 0


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [
        "usage: hf-seqrec [--debug] COMMAND ...   (also `python -m hf_seqrec`)",
        "",
        "Sequential recommendation: from a log to a model that says what comes next.",
        "",
    ]
    for name, command in COMMANDS.items():
        lines += [f"  {name:{width}}  {command.help}", f"{'':8}hf-seqrec {name} {command.example}"]
    return "\n".join([*lines, "", "`hf-seqrec COMMAND --help` has the options; `hf-seqrec --version` the version."])


def _take_debug(words: list[str]) -> bool:
    """Remove `--debug` from the words; one with a value is the option of transformers that has this name."""
    places = [place for place, word in enumerate(words) if word == "--debug"]
    ours = [place for place in places if place == 0 or all(word.startswith("--") for word in words[place + 1 :][:1])]
    for place in reversed(ours):
        del words[place]
    return bool(ours)


def _print_what_the_console_can() -> None:
    """Have the console show `\\u5343` for a character that it does not have, instead of failing."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def _report(error: Exception, debug: bool) -> int:
    """Print an error, a user's in one line, and return the exit code."""
    is_users = _is_users_mistake(error)
    rank = os.environ.get("RANK", "0")
    if rank != "0":
        time.sleep(_SECONDS_FOR_MAIN)
    if debug or not is_users:
        traceback.print_exception(error)
    if is_users:
        which = "" if rank == "0" else f" (process {rank})"
        print(f"error: {_message(error)}{which}", file=sys.stderr)
    return _USER_ERROR if is_users else 1


def _is_users_mistake(error: Exception) -> bool:
    """Tell whether an error is about what the user gave us; anything else is a fault in the program."""
    if isinstance(error, ValueError | OSError):
        return True
    if isinstance(error, ImportError):
        return "pip install" in str(error) or _extra_of(error) is not None
    if isinstance(error, TypeError):
        # Ours name the argument in backticks; those of Python are bugs.
        return "`" in str(error) and _is_raised_by_us(error)
    from huggingface_hub.errors import StrictDataclassError

    from ..hub.upload import PushError

    return isinstance(error, PushError | StrictDataclassError)


def _is_raised_by_us(error: Exception) -> bool:
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return Path(__file__).parents[1] in Path(frame.f_code.co_filename).parents


def _extra_of(error: ImportError) -> str | None:
    return EXTRA_OF_MODULE.get((error.name or "").partition(".")[0])


def _message(error: Exception) -> str:
    if isinstance(error, ImportError) and "pip install" not in str(error):
        extra = _extra_of(error)
        assert extra is not None  # otherwise it is no mistake of the user's
        return f"this needs {error.name}, which is not installed: {install_hint(extra)}"
    return " ".join(str(error).split()) or type(error).__name__
