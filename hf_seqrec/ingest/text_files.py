"""Text in whatever compression: open it, and write the plain copy that an engine can read."""

import bz2
import gzip
import io
import lzma
import shutil
import zlib
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pyarrow as pa

_BOM = b"\xef\xbb\xbf"


_OPENERS: dict[str, Callable[[Path], Any]] = {
    ".gz": gzip.GzipFile,
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
    ".zst": lambda path: pa.input_stream(str(path), compression="zstd"),
}
COMPRESSIONS = tuple(_OPENERS)
# What the openers raise in the middle of a file that was cut or damaged.
DAMAGED = (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, pa.ArrowException, OSError)


def compression(path: Path) -> str:
    """Return how a file is compressed, by its ending: one of `COMPRESSIONS`, or `""`."""
    return path.suffix.lower() if path.suffix.lower() in COMPRESSIONS else ""


def open_bytes(path: Path) -> Any:
    """Open a file for reading, unpacked on the way."""
    packed = compression(path)
    return _OPENERS[packed](path) if packed else path.open("rb")


def open_text(path: Path, encoding: str, errors: str = "strict") -> io.TextIOWrapper:
    """Open text for reading, unpacked on the way; line ends stay as they are and a byte-order mark is left out."""
    encoding = "utf-8-sig" if encoding == "utf-8" else encoding
    return io.TextIOWrapper(open_bytes(path), encoding=encoding, errors=errors, newline="")


def check_whole(path: Path) -> None:
    """
    Unpack a compressed file to its end and keep nothing of it.

    Raises:
        ValueError: if it was cut short or damaged.
    """
    try:
        with open_bytes(path) as file:
            while file.read(1 << 20):
                pass
    except DAMAGED as error:
        raise damaged(path) from error


def damaged(path: Path) -> ValueError:
    """Say of a compressed file that it was cut short."""
    return ValueError(
        f"{path} is not a whole {compression(path)} file: it was cut short or damaged on its way. Fetch it again."
    )


def begins_with_mark(path: Path) -> bool:
    """Whether text begins with a byte-order mark."""
    with open_bytes(path) as file:
        return bool(file.read(len(_BOM)) == _BOM)


def readable(path: Path, folder: Path, unpacks: Collection[str], without_mark: bool = False) -> Path:
    r"""
    Return a file that an engine can read: the file itself, or an unpacked copy of it.

    Args:
        path (`Path`): The text.
        folder (`Path`): Where the copy goes. It is made once.
        unpacks (`Collection[str]`): Compressions that the engine unpacks itself.
        without_mark (`bool`, *optional*, defaults to `False`): Whether a byte-order mark must go.

    Raises:
        ValueError: if a compressed file was cut short.
    """
    packed = compression(path)
    if (not packed or packed in unpacks) and not (without_mark and begins_with_mark(path)):
        return path
    copy = _place_of_copy(path, folder)
    if not copy.exists():
        try:
            with open_bytes(path) as source, copy.open("wb") as target:
                first = source.read(len(_BOM))
                target.write(b"" if first == _BOM else first)
                shutil.copyfileobj(source, target, 1 << 20)
        except DAMAGED as error:
            copy.unlink()
            if not packed or "no space left" in str(error).lower():
                raise
            raise damaged(path) from error
    return copy


def with_one_line_end(path: Path, folder: Path) -> Path:
    """Return a copy of text whose lines all end in a line feed, where one file mixes the ends of several systems."""
    copy = _place_of_copy(path, folder, "lines-")
    with open_bytes(path) as source, copy.open("wb") as target:
        last = b""
        while piece := source.read(1 << 20):
            # A carriage return at the end of a piece may belong to the line feed that follows.
            piece, last = last + piece, b""
            if piece.endswith(b"\r"):
                piece, last = piece[:-1], b"\r"
            target.write(piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n"))
        target.write(last.replace(b"\r", b"\n"))
    return copy


def link(path: Path, folder: Path) -> Path:
    """Return a link to a file that has a plain name and is in a folder of one."""
    place = _place_of_copy(path, folder, "link-")
    place = place.with_name(f"log{''.join(path.suffixes[-2:])}")
    if not place.exists():
        place.symlink_to(path.resolve())
    return place


def _place_of_copy(path: Path, folder: Path, prefix: str = "plain-") -> Path:
    name = path.name.removesuffix(path.suffix) if compression(path) else path.name
    place = folder / f"{prefix}{zlib.crc32(str(path).encode()):08x}"
    place.mkdir(parents=True, exist_ok=True)
    # Endings tell engines nothing here, and a pattern's characters would.
    return place / f"log{Path(name).suffix}"
