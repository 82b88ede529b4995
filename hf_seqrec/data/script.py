"""What the scripts in dataset_scripts/ share: options, where the raw data is, build, say what came out, upload."""

import dataclasses
import json
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, cached_assets_path
from transformers import HfArgumentParser

from ..hub import upload
from .build import BuildArguments, build_dataset
from .dataset_card import About
from .dataset_folder import check_replaceable
from .download import download
from .interactions import InteractionsArguments
from .raw_files import RawFile
from .raw_source import RawSource
from .sequences import STATISTICS_FILE


@dataclass
class PathArguments:
    """Where from, where to."""

    output: str = field(metadata={"help": "The dataset folder. An earlier dataset there is replaced."})
    raw: list[str] | None = field(
        default=None,
        metadata={
            "help": "The raw data: files, a folder, an archive, a pattern, or an address (https://, hf://datasets/, "
            "s3://). Fetched from where its authors offer it if left out."
        },
    )
    download_folder: str | None = field(
        default=None,
        metadata={"help": "Where downloads go and are found again. The Hugging Face cache if left out."},
    )
    push_to_hub: str | None = field(
        default=None,
        metadata={
            "help": "Upload the folder as this dataset repository (`org/name`). A new one is private: see the licence "
            "of the source before you make it public."
        },
    )


@dataclass(frozen=True)
class Published:
    """A file that a dataset's authors offer: its address, and what they say about its content."""

    url: str
    md5: str | None = None
    size: int | None = None


def parse(description: str, *options: type) -> tuple[Any, ...]:
    """Return the command line as `options`, `PathArguments`, `InteractionsArguments`, `BuildArguments`."""
    records: Any = (*options, PathArguments, InteractionsArguments, BuildArguments)
    parser = HfArgumentParser(records, description=description.strip().splitlines()[0])
    return parser.parse_args_into_dataclasses()


def known_columns(arguments: InteractionsArguments, **columns: Any) -> InteractionsArguments:
    """
    Fill in what is known of a published format.

    Raises:
        ValueError: if the command line names one of these itself.
    """
    named = [name for name in columns if getattr(arguments, name) is not None]
    if named:
        raise ValueError(
            f"`{'`, `'.join(named)}` must be left out: this dataset's format is known. For another table use "
            "dataset_scripts/interactions.py."
        )
    return dataclasses.replace(arguments, **columns)


@contextmanager
def open_source(
    paths: PathArguments, name: str, wanted: Sequence[str], published: Sequence[Published] = ()
) -> Iterator[tuple[RawSource, Path]]:
    r"""
    Yield the raw data and a folder for what is unpacked or made of it, which is removed at the end.

    Args:
        paths (`PathArguments`): The command line.
        name (`str`): What to call the folder of the downloads.
        wanted (`Sequence[str]`): Patterns of the names of the files that are needed.
        published (`Sequence[Published]`): What to fetch if the command line names nothing.

    Raises:
        FileExistsError: if `output` holds something else than a dataset. Before anything is fetched.
    """
    check_replaceable(paths.output)
    output = Path(paths.output).resolve()
    output.parent.mkdir(parents=True, exist_ok=True)
    downloads = Path(paths.download_folder or cached_assets_path("hf_seqrec", namespace="raw", subfolder=name))
    # Beside the output: a system's folder of temporary files is often too small for a log.
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", suffix=".raw", dir=output.parent) as work:
        raw = paths.raw or [_fetch(file, downloads) for file in published]
        yield RawSource.open(raw, work, wanted, downloads), Path(work)


def build(
    raw: RawFile,
    paths: PathArguments,
    arguments: InteractionsArguments,
    build_arguments: BuildArguments,
    about: About,
    items: RawFile | None = None,
) -> Path:
    """Build the dataset folder, say what came out, upload it if asked to. Returns the folder."""
    about = dataclasses.replace(about, command=command_line())
    folder = build_dataset(raw, paths.output, arguments, build_arguments, items=items, about=about, progress=True)
    print_statistics(folder)
    if paths.push_to_hub is not None:
        print(push_to_hub(folder, paths.push_to_hub))
    return folder


def print_statistics(folder: Path) -> None:
    """Print how many users, items and interactions there were after each step."""
    statistics = json.loads((folder / STATISTICS_FILE).read_text(encoding="utf-8"))
    for step in [*statistics.get("steps", []), {"name": str(folder)} | statistics]:
        print(
            f"{step['name']}: {step['n_users']:,} users / {step['n_items']:,} items / "
            f"{step['n_interactions']:,} interactions"
        )
    for what, n in statistics.get("skipped_rows", {}).items():
        print(f"{n:,} malformed rows were left out: {what}.")
    n_short = statistics["n_users_not_evaluated"]
    print(f"{n_short:,} users have fewer than three events: kept for training, not evaluated.")


def push_to_hub(folder: Path, repo_id: str) -> str:
    """Upload a dataset folder and return its address. A repository that is not there yet is made, private."""
    return str(push_dataset(folder, repo_id).repo_url)


def push_dataset(
    folder: Path,
    repo_id: str,
    *,
    private: bool = True,
    revision: str | None = None,
    commit_message: str = "Upload dataset",
) -> CommitInfo:
    """Upload a dataset folder and return the commit; the arguments are those of [`~hf_seqrec.hub.upload`]."""
    return upload(
        folder,
        repo_id,
        "dataset",
        # Of a new one: an existing repository keeps who may see it.
        private=private,
        revision=revision,
        commit_message=commit_message,
        # What an earlier version had more of, such as shards.
        delete_patterns=["*.parquet"],
    )


def command_line() -> str:
    """Return the command that runs, without the folders of this machine."""
    words = [_without_folders(word) for word in sys.argv[1:]]
    return shlex.join(["python", f"dataset_scripts/{Path(sys.argv[0]).name}", *words])


def _without_folders(word: str) -> str:
    """Give the name of a file instead of the way to it, also in `--option=path`."""
    option, separator, value = word.partition("=") if word.startswith("--") else ("", "", word)
    path = Path(value)
    is_elsewhere = path.is_absolute() or path.parts[:1] in (("..",), ("~",))
    return option + separator + (path.name if is_elsewhere else value)


def _fetch(file: Published, folder: Path) -> str:
    if file.url.startswith("hf://"):
        return file.url
    return str(download(file.url, folder, md5=file.md5, size=file.size))
