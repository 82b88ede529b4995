"""
Fetch a file over HTTP: with progress, resumed where it was cut, checked before it takes its name.

A download grows in `<name>.part`. What the server called that version of the file (ETag or date) is kept beside it,
and the rest is asked for on the condition that it is still the same one; a file that changed is fetched anew.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

import requests
import urllib3
from filelock import FileLock
from tqdm.auto import tqdm

_CHUNK = 1 << 20
# Seconds to reach the server, and between two pieces of the answer.
_TIMEOUT = (15, 60)
# Seconds before each new attempt. An attempt that brought the file further starts the count again.
_PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)
_LONGEST_PAUSE = 60.0
_PASSING_STATUS = {408, 425, 429, 500, 502, 503, 504}


def download(
    url: str,
    folder: str | Path,
    sha256: str | None = None,
    md5: str | None = None,
    size: int | None = None,
    progress: bool = True,
) -> Path:
    r"""
    Fetch a file into a folder and return its path. A file that is there already is checked and used again.

    Args:
        url (`str`): An `http://` or `https://` address; the file takes its last part for a name.
        folder (`str`): Where to. Made if it is not there.
        sha256 (`str`, *optional*), md5 (`str`, *optional*): The published checksum, as hexadecimal digits.
        size (`int`, *optional*): The published number of bytes.
        progress (`bool`, *optional*, defaults to `True`): Whether to show a progress bar.

    Raises:
        FileNotFoundError: if the server has no such file.
        PermissionError: if the server asks who is there.
        ConnectionError: if the server cannot be reached, or breaks off again and again.
        OSError: with `errno.ENOSPC` if the file does not fit on the disk; the message names bytes needed and free.
        ValueError: if the file is not the one that the checksum or the size belongs to.

    Example:

    ```python
    >>> download("https://files.grouplens.org/datasets/movielens/ml-1m.zip", "raw", size=5917549)
    ```
    """
    name = unquote(urlsplit(url).path).rsplit("/", 1)[-1]
    if urlsplit(url).scheme not in ("http", "https") or name in ("", ".", ".."):
        raise ValueError(f"`url` must be the http(s) address of a file, got {url!r}.")
    path = Path(folder) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    expected = {"sha256": sha256, "md5": md5}
    # Two builds at the same time would write into the same unfinished file.
    with FileLock(f"{path}.lock"):
        if path.is_file():
            _check(path, size, expected, f"Delete {path} to fetch it again from {url}.")
            return path
        part = _Part(url, path.with_name(f"{name}.part"), size, has_checksum=bool(sha256 or md5))
        _fetch_whole(part, progress)
        try:
            _check(part.path, size, expected, f"It was not used. See whether {url} has a new version, or try again.")
        except ValueError:
            # Nothing to go on from: these bytes are wrong.
            part.start_anew()
            raise
        os.replace(part.path, path)
        part.forget()
    return path


def require_space(folder: str | Path, n_bytes: int, what: str) -> None:
    """
    Do nothing where a file of so many bytes fits on a folder's disk.

    Raises:
        OSError: with `errno.ENOSPC` if it does not.
    """
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise OSError(
            errno.ENOSPC,
            f"{what} needs {n_bytes:,} bytes, the disk has {free:,} free. Make room or choose another folder",
            str(folder),
        )


@contextmanager
def naming_full_disk(folder: str | Path, n_bytes: int | None, what: str) -> Iterator[None]:
    """Turn a disk that fills up while the block writes into an error that names how much was needed."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        needed = "an unknown number of" if n_bytes is None else f"{n_bytes:,}"
        free = shutil.disk_usage(folder).free
        raise OSError(
            errno.ENOSPC,
            f"the disk is full: {what} needs {needed} bytes, {free:,} are free. Make room or choose another folder",
            str(folder),
        ) from error


def file_digest(path: str | Path, algorithm: str) -> str:
    """Return the checksum of a file as hexadecimal digits."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with Path(path).open("rb") as file:
        while piece := file.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()


class _Part:
    """An unfinished download, and what the server said about the version that it is a part of."""

    def __init__(self, url: str, path: Path, size: int | None, has_checksum: bool) -> None:
        self.url, self.path, self.size, self.has_checksum = url, path, size, has_checksum
        self.notes = path.with_name(f"{path.name}.json")
        try:
            noted = json.loads(self.notes.read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            noted = {}
        self.version, self.total = noted.get("version"), noted.get("total")
        if noted.get("url") != url or not self.can_go_on:
            self.start_anew()

    @property
    def n_bytes(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    @property
    def can_go_on(self) -> bool:
        """Without a name for the version only a checksum can tell whether the rest fits."""
        return self.n_bytes > 0 and (self.version is not None or self.has_checksum)

    @property
    def is_whole(self) -> bool:
        return self.total is not None and self.n_bytes == self.total

    def note(self, version: str | None, total: int | None) -> None:
        self.version, self.total = version, total
        noted = {"url": self.url, "version": version, "total": total}
        self.notes.write_text(json.dumps(noted), encoding="utf-8")

    def start_anew(self) -> None:
        self.version, self.total = None, None
        self.path.unlink(missing_ok=True)
        self.forget()

    def forget(self) -> None:
        self.notes.unlink(missing_ok=True)


class _TryAgain(Exception):
    """What may pass: the server is busy, or broke off."""

    def __init__(self, reason: str, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.pause = pause


def _fetch_whole(part: _Part, progress: bool) -> None:
    n_failures, furthest = 0, part.n_bytes
    with requests.Session() as session:
        while not part.is_whole:
            try:
                _fetch_rest(session, part, progress)
                return
            except _TryAgain as error:
                n_failures = 1 if part.n_bytes > furthest else n_failures + 1
                furthest = max(furthest, part.n_bytes)
                if n_failures > len(_PAUSES):
                    raise ConnectionError(
                        f"{part.url} could not be fetched in {n_failures} attempts: {error}. "
                        f"{furthest:,} bytes are kept: try again later, and it goes on from there."
                    ) from error
                time.sleep(min(max(_PAUSES[n_failures - 1], error.pause), _LONGEST_PAUSE))


def _fetch_rest(session: requests.Session, part: _Part, progress: bool) -> None:
    """Ask for what is missing and append it; where the server gives the whole file instead, begin again."""
    if not part.can_go_on:
        part.start_anew()
    # Not compressed on the way: checksums are of the file as it lies there.
    headers = {"Accept-Encoding": "identity"}
    if part.n_bytes:
        headers["Range"] = f"bytes={part.n_bytes}-"
        if part.version is not None:
            headers["If-Range"] = part.version
    try:
        with session.get(part.url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
            _check_status(response, part)
            resumed = response.status_code == requests.codes.partial
            if not resumed:
                part.start_anew()
            part.note(_version(response) or part.version, _total(response, part.n_bytes))
            _append(response, part, progress)
    except requests.exceptions.SSLError as error:
        raise ConnectionError(
            f"{part.url} cannot be fetched safely: {_reason(error)}. Fetch it by hand and pass the file."
        ) from error
    except (requests.exceptions.ConnectionError, requests.exceptions.Timeout) as error:
        raise _TryAgain(f"no connection ({_reason(error)})") from error
    except requests.exceptions.RequestException as error:
        raise ConnectionError(f"{part.url} cannot be fetched: {error}.") from error
    except urllib3.exceptions.HTTPError as error:
        raise _TryAgain(f"the connection broke off ({error})") from error
    if part.total is not None and part.n_bytes < part.total:
        raise _TryAgain(f"the connection broke off after {part.n_bytes:,} of {part.total:,} bytes")


def _check_status(response: requests.Response, part: _Part) -> None:
    status, said = response.status_code, f"{response.status_code} {response.reason}"
    if status in (requests.codes.not_found, requests.codes.gone):
        raise FileNotFoundError(f"there is no file at {part.url} ({said}). See whether the address has changed.")
    if status in (requests.codes.unauthorized, requests.codes.forbidden):
        raise PermissionError(f"{part.url} may not be fetched ({said}). Fetch it by hand and pass the file.")
    if status in _PASSING_STATUS:
        pause = response.headers.get("Retry-After", "")
        raise _TryAgain(f"the server answered {said}", float(pause) if pause.isdecimal() else 0.0)
    if status == requests.codes.requested_range_not_satisfiable:
        part.start_anew()
        raise _TryAgain(f"the server answered {said}")
    if status not in (requests.codes.ok, requests.codes.partial):
        raise ConnectionError(f"{part.url} cannot be fetched: the server answered {said}.")
    if status == requests.codes.partial and _start(response) != part.n_bytes:
        part.start_anew()
        raise _TryAgain("the server answered with another part than it was asked for")


def _append(response: requests.Response, part: _Part, progress: bool) -> None:
    name, done = part.path.stem, part.n_bytes
    if part.size is not None and part.total is not None and part.total != part.size:
        found = part.total
        part.start_anew()
        raise ValueError(
            f"{part.url} must be a file of {part.size:,} bytes, the server has one of {found:,}: another version. "
            "See what has changed there; if it is right, fetch it by hand and pass the file."
        )
    if part.total is not None:
        require_space(part.path.parent, part.total - done, name)
    bar = tqdm(total=part.total, initial=done, unit="B", unit_scale=True, desc=name, disable=not progress)
    # The bytes as they come: a server that calls a .gz file "encoded" would have it unpacked on the way.
    with bar, part.path.open("ab") as file:
        for piece in response.raw.stream(_CHUNK, decode_content=False):
            with naming_full_disk(part.path.parent, part.total, name):
                file.write(piece)
                file.flush()
            bar.update(len(piece))


def _version(response: requests.Response) -> str | None:
    """Return what names this version of the file. A weak ETag does not: it may stay when bytes change."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified")


def _start(response: requests.Response) -> int | None:
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(found[1]) if found else None


def _total(response: requests.Response, done: int) -> int | None:
    """Return how many bytes the whole file has, where the server says so."""
    length = response.headers.get("Content-Length", "")
    return done + int(length) if length.isdecimal() else None


def _reason(error: requests.exceptions.RequestException) -> str:
    """Say what happened below; the layers above repeat it in longer words."""
    inner = error.args[0] if error.args else error
    return str(getattr(inner, "reason", inner))


def _check(path: Path, size: int | None, expected: dict[str, str | None], way_out: str) -> None:
    found_size = path.stat().st_size
    if size is not None and found_size != size:
        raise ValueError(f"{path.name} must have {size:,} bytes, it has {found_size:,}. {way_out}")
    for algorithm, digest in expected.items():
        if digest is None:
            continue
        found = file_digest(path, algorithm)
        if found != digest.lower():
            raise ValueError(f"{path.name} must have the {algorithm} checksum {digest}, it has {found}. {way_out}")
