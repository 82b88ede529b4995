"""
From where a raw dataset is to local files: a file, a folder, an archive, a pattern, an address, or several of these.

Of an archive only the wanted members are unpacked, in one pass: a .tar.gz has no table of contents, and KuaiRand-27K
unpacks to 46 GB of which 26 GB are wanted.
"""

import bz2
import fnmatch
import glob
import gzip
import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tqdm.auto import tqdm

from ..installing import install_hint
from .download import download, file_digest, naming_full_disk, require_space
from .text_files import COMPRESSIONS

# How to unpack what is around a tar file, by ending. A .gz that is no .tar.gz is one compressed file and stays it.
_TAR: dict[str, Callable[[Any], Any]] = {
    ".tar": lambda file: file,
    ".tar.gz": gzip.open,
    ".tgz": gzip.open,
    ".tar.bz2": bz2.open,
    ".tar.xz": lzma.open,
}
ARCHIVES = (".zip", *_TAR)
# What pip calls the packages behind remote file systems, where one of our extras brings them.
_EXTRAS = {"s3": "s3", "s3a": "s3"}
_TAR_END = bytes(1024)


@dataclass(frozen=True)
class RawSource:
    """
    A raw dataset on this machine.

    Fields:
        files: What is there, of an archive what was wanted. Sorted by path, in the order in which places were named.
        names: Everything the places hold, wanted or not, for messages.
        places: What was asked for.
    """

    files: list[Path]
    names: list[str]
    places: str
    _folders: list[Path] = field(default_factory=list, repr=False)

    @classmethod
    def open(
        cls,
        raw: str | Path | Sequence[str | Path],
        work_folder: str | Path,
        wanted: Sequence[str],
        download_folder: str | Path | None = None,
        progress: bool = True,
    ) -> "RawSource":
        r"""
        Find a raw dataset, fetching and unpacking what has to be.

        Args:
            raw (`str` or a list of them):
                A file, a folder (searched with all below), an archive, a pattern such as `logs/*.csv`, an address
                (`https://`, `hf://datasets/...`, `s3://` and what else fsspec knows), or several of these.
            work_folder (`str`): Where members of archives are unpacked to. Belongs to the caller, who removes it.
            wanted (`Sequence[str]`):
                Patterns of file names. `*.csv` also stands for `*.csv.gz` and other compressed text.
            download_folder (`str`, *optional*): Where downloads go; `work_folder` if not given.
            progress (`bool`, *optional*, defaults to `True`): Whether to show progress bars.

        Raises:
            FileNotFoundError: if there is nothing at one of the places.
            ImportError: if fsspec needs a package for an address that is not installed.
            OSError: with `errno.ENOSPC` if something does not fit on the disk.
            ValueError: if an archive is damaged, encrypted, or would be unpacked outside of its folder.
        """
        places = [str(place) for place in ([raw] if isinstance(raw, str | Path) else raw)]
        if not places:
            raise ValueError("`raw` must name at least one place, got an empty list.")
        files: list[Path] = []
        names: list[str] = []
        folders: list[Path] = []
        for number, place in enumerate(places):
            for path in _local_paths(place, wanted, Path(download_folder or work_folder), progress):
                if path.is_dir():
                    found = _files_below(path)
                    files += found
                    names += [str(file.relative_to(path)) for file in found]
                elif ending := _archive_ending(path):
                    folder = Path(work_folder) / f"{number}-{path.name.removesuffix(ending)}"
                    unpacked, members = _unpack(path, folder, wanted, progress)
                    files += unpacked
                    names += members
                else:
                    files.append(path)
                    names.append(path.name)
                    folders.append(path.parent)
        return cls(files, names, ", ".join(places), folders)

    def take(self, *patterns: str) -> list[Path]:
        """
        Return the files of the first pattern that there are any of.

        Raises:
            FileNotFoundError: if there are none of any; the message lists what there is.
        """
        for pattern in patterns:
            if found := [file for file in self.files if _matches(file.name, [pattern])]:
                return found
        shown = sorted(set(self.names))
        rest = f" and {len(shown) - 20:,} more" if len(shown) > 20 else ""
        raise FileNotFoundError(
            f"`raw` must hold {' or '.join(patterns)}, but in {self.places} there is "
            f"{', '.join(shown[:20]) or 'nothing'}{rest}."
        )

    def find(self, *patterns: str) -> list[Path]:
        """Return what `take` does, or none; beside files that were named alone their neighbours are looked at too."""
        neighbours = [file for folder in dict.fromkeys(self._folders) for file in sorted(folder.iterdir())]
        for pattern in patterns:
            for files in (self.files, neighbours):
                if found := [file for file in files if _matches(file.name, [pattern]) and file.is_file()]:
                    return found
        return []


def locate(
    raw: str | Path | Sequence[str | Path],
    work_folder: str | Path,
    wanted: Sequence[str],
    download_folder: str | Path | None = None,
    progress: bool = True,
) -> list[Path]:
    """Return the local files of the first of the `wanted` patterns that there are any of; see `RawSource.open`."""
    return RawSource.open(raw, work_folder, wanted, download_folder, progress).take(*wanted)


def _matches(name: str, patterns: Iterable[str]) -> bool:
    bare = next((name.removesuffix(packed) for packed in COMPRESSIONS if name.endswith(packed)), name)
    return any(fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(bare, pattern) for pattern in patterns)


def _archive_ending(path: Path) -> str | None:
    return next((ending for ending in ARCHIVES if path.name.lower().endswith(ending)), None)


def _files_below(folder: Path) -> list[Path]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted(file for file in files if not any(part.startswith(".") for part in file.relative_to(folder).parts))


def _local_paths(place: str, wanted: Sequence[str], download_folder: Path, progress: bool) -> list[Path]:
    if "://" in place:
        return _fetch(place, wanted, download_folder, progress)
    path = Path(place).expanduser()
    if path.exists():
        return [path]
    if glob.has_magic(place) and (found := sorted(glob.glob(str(path), recursive=True))):
        return [Path(name) for name in found]
    raise FileNotFoundError(
        f"`raw` must be a file, a folder, an archive, a pattern or an address: nothing at {place}."
    )


def _fetch(address: str, wanted: Sequence[str], folder: Path, progress: bool) -> list[Path]:
    """Bring what an address stands for onto this machine."""
    protocol = address.split("://")[0]
    if protocol in ("http", "https"):
        return [download(address, folder, progress=progress)]
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(address)
    except ImportError as error:
        extra = _EXTRAS.get(protocol)
        how = install_hint(extra) if extra else f"see what fsspec says: {error}"
        raise ImportError(f"{address} needs a package that is not installed: {how}.") from error
    except ValueError as error:
        raise ValueError(f"`raw` must be an address that fsspec knows, got {address}: {error}.") from error
    if glob.has_magic(path) and not system.exists(path):
        names = sorted(name for name in system.glob(path) if system.isfile(name))
    elif system.isdir(path):
        names = sorted(system.find(path))
        names = [name for name in names if _matches(name.rsplit("/", 1)[-1], [*wanted, *(f"*{e}" for e in ARCHIVES)])]
    else:
        names = [path] if system.exists(path) else []
    if not names:
        raise FileNotFoundError(f"there is nothing at {address} that is wanted ({', '.join(wanted)}).")
    if protocol == "hf":
        return [_fetch_from_hub(system, name) for name in names]
    return [_fetch_with_fsspec(system, name, folder, progress) for name in names]


def _fetch_from_hub(system: Any, name: str) -> Path:
    """Fetch a file of a repository into the Hub's own cache, which resumes, and hold it against its checksum."""
    from huggingface_hub import hf_hub_download

    where, checksum = system.resolve_path(name), (system.info(name).get("lfs") or {}).get("sha256")
    path = Path(hf_hub_download(where.repo_id, where.path_in_repo, repo_type=where.repo_type, revision=where.revision))
    if checksum is not None and (found := file_digest(path, "sha256")) != checksum:
        raise ValueError(
            f"{name} must have the sha256 checksum {checksum}, {path} has {found}. Delete that file to fetch it again."
        )
    return path


def _fetch_with_fsspec(system: Any, name: str, folder: Path, progress: bool) -> Path:
    from fsspec.callbacks import DEFAULT_CALLBACK, TqdmCallback

    path = folder / name.rsplit("/", 1)[-1]
    part = path.with_name(f"{path.name}.part")
    folder.mkdir(parents=True, exist_ok=True)
    size = system.size(name)
    if size is not None:
        require_space(folder, size, path.name)
    options = {"desc": path.name, "unit": "B", "unit_scale": True}
    with naming_full_disk(folder, size, path.name):
        system.get_file(name, str(part), callback=TqdmCallback(options) if progress else DEFAULT_CALLBACK)
    if size is not None and part.stat().st_size != size:
        raise ConnectionError(f"of {name} only {part.stat().st_size:,} of {size:,} bytes came. Try again.")
    return part.replace(path)


def _unpack(archive: Path, folder: Path, wanted: Sequence[str], progress: bool) -> tuple[list[Path], list[str]]:
    """Unpack the wanted files of an archive; return their paths, sorted, and the names of all its files."""
    folder.mkdir(parents=True, exist_ok=True)
    unpack = _unpack_zip if archive.name.lower().endswith(".zip") else _unpack_tar
    try:
        files, names = unpack(archive, folder, wanted, progress)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, gzip.BadGzipFile) as error:
        raise _damaged(archive, str(error)) from error
    except NotImplementedError as error:
        raise ValueError(f"{archive} cannot be unpacked here: {error}. Unpack it and pass the folder.") from error
    return sorted(files), names


def _damaged(archive: Path, how: str) -> ValueError:
    return ValueError(
        f"{archive} is not a whole {_archive_ending(archive)} file ({how}): it was cut short or damaged on its way. "
        "Fetch it again."
    )


def _unpack_zip(archive: Path, folder: Path, wanted: Sequence[str], progress: bool) -> tuple[list[Path], list[str]]:
    with zipfile.ZipFile(archive) as file:
        members = [member for member in file.infolist() if not member.is_dir()]
        chosen = [member for member in members if _is_wanted(member.filename, wanted)]
        if encrypted := [member.filename for member in chosen if member.flag_bits & 1]:
            raise ValueError(
                f"{archive} must not be encrypted, {encrypted[0]} in it is. Unpack it and pass the folder."
            )
        total = sum(member.file_size for member in chosen)
        require_space(folder, total, f"unpacking {archive.name}")
        files = []
        with _bar(total, archive, progress) as bar:
            for member in chosen:
                target = _inside(folder, member.filename, archive)
                with file.open(member) as source:
                    _write(_Counted(source, bar), target, member.file_size)
                files.append(target)
    return files, [member.filename for member in members]


def _unpack_tar(archive: Path, folder: Path, wanted: Sequence[str], progress: bool) -> tuple[list[Path], list[str]]:
    files, names = [], []
    with archive.open("rb") as packed, _bar(archive.stat().st_size, archive, progress) as bar:
        ending = _archive_ending(archive) or ""
        stream = _TAR[ending](_Counted(packed, bar))
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                # Neither folders nor links, which could lead outside.
                if not member.isreg():
                    continue
                names.append(member.name)
                if not _is_wanted(member.name, wanted):
                    continue
                target = _inside(folder, member.name, archive)
                require_space(folder, member.size, f"unpacking {member.name} of {archive.name}")
                source = tar.extractfile(member)
                assert source is not None
                _write(source, target, member.size)
                files.append(target)
            # tarfile takes a header that is cut short for the end, and nobody has read the checksum behind it.
            tail = _last_bytes(stream)
        if ending == ".tar":
            packed.seek(max(0, archive.stat().st_size - len(_TAR_END)))
            tail = packed.read()
    if not tail.endswith(_TAR_END) and ending == ".tar":
        raise _damaged(archive, "it has no end")
    return files, names


def _last_bytes(stream: Any) -> bytes:
    tail = b""
    while piece := stream.read(1 << 20):
        tail = (tail + piece)[-len(_TAR_END) :]
    return tail


def _is_wanted(name: str, wanted: Sequence[str]) -> bool:
    base = name.rsplit("/", 1)[-1]
    # Archives made on a Mac hold a shadow `._name` of every file.
    return not base.startswith("._") and _matches(base, wanted)


def _inside(folder: Path, name: str, archive: Path) -> Path:
    """Return where a member goes, which must be inside of the folder."""
    root = folder.resolve()
    target = (root / name.replace("\\", "/")).resolve()
    if not target.is_relative_to(root):
        raise ValueError(
            f"{archive} must unpack into its own folder, its member {name} would leave it. Do not trust it."
        )
    return target


def _write(source: IO[bytes] | Any, target: Path, size: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with naming_full_disk(target.parent, size, target.name), target.open("wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)


def _bar(total: int, archive: Path, progress: bool) -> Any:
    return tqdm(
        total=total,
        unit="B",
        unit_scale=True,
        unit_divisor=1000,
        desc=f"Unpacking {archive.name}",
        disable=not progress,
    )


class _Counted:
    """A file whose reading moves a progress bar."""

    def __init__(self, file: Any, bar: Any) -> None:
        self._file, self._bar = file, bar

    def read(self, n: int = -1) -> bytes:
        piece: bytes = self._file.read(n)
        self._bar.update(len(piece))
        return piece

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
