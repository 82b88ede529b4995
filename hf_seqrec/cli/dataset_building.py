"""What `hf-seqrec build` and `hf-seqrec extend` share: options, where the raw data is, what came out, upload."""

import json
import shlex
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import cached_assets_path

from ..data.sequences import STATISTICS_FILE
from ..hub.push import push_dataset
from ..ingest.dataset_folder import check_replaceable
from ..ingest.download import download
from ..ingest.log_files import ENDINGS
from ..ingest.public_datasets.source import Published
from ..ingest.unpack import RawSource

# Files that are logs, packed or not.
LOG_PATTERNS = [f"*{ending}{packed}" for ending in ENDINGS if ending != ".item" for packed in ("", ".gz")]


@dataclass
class PathArguments:
    """Where from, where to."""

    output: str = field(metadata={"help": "The dataset folder. An earlier dataset there is replaced."})
    raw: list[str] | None = field(
        default=None,
        metadata={
            "help": "The raw data: files, a folder, an archive, a pattern, or an address (https://, hf://datasets/, "
            "s3://). A public dataset is fetched from where its authors offer it if left out."
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


@contextmanager
def open_source(
    paths: PathArguments, name: str, wanted: Sequence[str], published: Callable[[], Sequence[Published]]
) -> Iterator[tuple[RawSource, Path]]:
    r"""
    Yield the raw data and a folder for what is unpacked or made of it, which is removed at the end.

    Args:
        paths (`PathArguments`): The command line.
        name (`str`): What to call the folder of the downloads.
        wanted (`Sequence[str]`): Patterns of the names of the files that are needed.
        published (`Callable`): Returns what to fetch if the command line names nothing.

    Raises:
        FileExistsError: if `output` holds something else than a dataset. Before anything is fetched.
    """
    check_replaceable(paths.output)
    output = Path(paths.output).resolve()
    output.parent.mkdir(parents=True, exist_ok=True)
    downloads = Path(paths.download_folder or cached_assets_path("hf_seqrec", namespace="raw", subfolder=name))
    # Beside the output: a system's folder of temporary files is often too small for a log.
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", suffix=".raw", dir=output.parent) as work:
        raw = paths.raw or [_fetch(file, downloads) for file in published()]
        yield RawSource.open(raw, work, wanted, downloads), Path(work)


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


def command_without_folders(words: Sequence[str]) -> str:
    """Return a command as it is typed, without the folders of this machine."""
    return shlex.join(["hf-seqrec", *(Path(word).name if Path(word).is_absolute() else word for word in words)])


def _fetch(file: Published, folder: Path) -> str:
    if file.url.startswith("hf://"):
        return file.url
    return str(download(file.url, folder, md5=file.md5, size=file.size))
