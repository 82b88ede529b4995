"""The catalog: which raw item id stands at which row of the embedding. Needs numpy and pyarrow, nothing else."""

import hashlib
import tempfile
import warnings
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

CATALOG_FILE = "catalog.parquet"

# Histories up to this many ids are looked up in a dict that stays; longer lists by one vectorised join, which builds
# its hash table anew at each call.
_SHORT = 1024
# Words that titles carry at either end, as in "Godfather, The".
_ARTICLES = ("the", "a", "an")
# In larger catalogs the few are looked for: 0.1 s among 5 million items, where the dict takes 13 s and a gigabyte.
_MOST_IN_A_DICT = 1_000_000


class Catalog:
    r"""
    The items of a dataset: raw ids (always strings) and the rows `1..n_items` that stand for them. Row 0 is padding.

    A built catalog is ordered by popularity: most interactions first, equal counts by raw id (order of code points).
    The order depends on nothing but the log's content. Items that arrive later are appended, so nothing may rely on
    it.

    Args:
        table (`pyarrow.Table`):
            Columns `row` (1..n_items in order), `item_id` (strings without gaps or repeats), `count` (interactions in
            the log), and any metadata; a column `title` is what people are shown.

    Raises:
        ValueError: if a column is missing, rows are not 1..n_items, or an id is empty or repeated.

    Example:

    ```python
    >>> catalog = Catalog.from_items(["007", "a b"], count=[5, 3], title=["Goldfinger", "A to B"])
    >>> catalog.encode(["a b", "007"])
    array([2, 1])
    >>> catalog.decode([1])
    ['007']
    ```
    """

    def __init__(self, table: pa.Table):
        _check_table(table)
        self.table: pa.Table = table.combine_chunks()
        self.item_ids: pa.StringArray = _column(self.table, "item_id")

    @classmethod
    def from_items(cls, item_ids: Any, count: Any = None, **metadata: Any) -> "Catalog":
        """Make a catalog from raw ids in row order, their counts (0 when left out) and columns of metadata."""
        ids = pa.array(item_ids, type=pa.string())
        columns: dict[str, Any] = {
            "row": pa.array(np.arange(1, len(ids) + 1, dtype=np.int32)),
            "item_id": ids,
            "count": pa.array(np.zeros(len(ids), dtype=np.int64) if count is None else count, type=pa.int64()),
        }
        return cls(pa.table(columns | {name: pa.array(values) for name, values in metadata.items()}))

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path, *, repo_type: str = "model", revision: str | None = None
    ) -> "Catalog":
        r"""
        Read the catalog of a dataset or checkpoint, from a folder or from the Hub.

        Args:
            name_or_path (`str`): A folder with a `catalog.parquet`, that file itself, or the id of a repository.
            repo_type (`str`, *optional*, defaults to `"model"`): `"model"` or `"dataset"`, on the Hub.
            revision (`str`, *optional*): Branch, tag or commit on the Hub.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if it is not a catalog.

        Example:

        ```python
        >>> catalog = Catalog.from_pretrained("org/mamba4rec-ml-1m")
        ```
        """
        path = Path(name_or_path)
        if path.is_dir():
            path = path / CATALOG_FILE
        elif not path.exists() and path.suffix != ".parquet":
            path = _download(str(name_or_path), repo_type, revision)
        if not path.is_file():
            raise FileNotFoundError(
                f"`name_or_path` must hold {CATALOG_FILE}, found none at {path}. Dataset folders and checkpoints have "
                "one."
            )
        try:
            table = pq.read_table(path)
        except pa.ArrowException as error:
            raise ValueError(f"{path} is not a readable Parquet file ({error}).") from error
        try:
            return cls(table)
        except ValueError as error:
            raise ValueError(f"{path} is not a catalog: {error}") from error

    def save(self, folder: str | Path) -> Path:
        """Write `catalog.parquet` into a folder and return its path."""
        path = Path(folder) / CATALOG_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(self.table, path, compression="zstd")
        return path

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        revision: str | None = None,
        token: str | None = None,
        commit_message: str = "Upload catalog",
    ) -> Any:
        """
        Upload `catalog.parquet` beside the model on the Hub that it belongs to, and return the commit.

        The options are those of `huggingface_hub`. A repository or branch that is not there yet is made.
        """
        from huggingface_hub import HfApi

        hub = HfApi(token=token)
        name = hub.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if revision is not None:
            hub.create_branch(name, branch=revision, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            # It belongs to the model.
            warnings.filterwarnings("ignore", "It seems that you are about to commit a data file")
            return hub.upload_file(
                path_or_fileobj=self.save(folder),
                path_in_repo=CATALOG_FILE,
                repo_id=name,
                revision=revision,
                commit_message=commit_message,
            )

    @property
    def n_items(self) -> int:
        """Number of items, the padding row not counted."""
        return len(self.item_ids)

    @property
    def vocab_size(self) -> int:
        """Rows of the item embedding: `n_items + 1`."""
        return self.n_items + 1

    def __len__(self) -> int:
        return self.n_items

    def __repr__(self) -> str:
        return f"Catalog({self.n_items:,} items, columns {self.table.column_names})"

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """Interactions of each item in the log, `(n_items,)`; item of row r at r - 1."""
        return _column(self.table, "count").to_numpy(zero_copy_only=False)

    @cached_property
    def rows_by_popularity(self) -> npt.NDArray[np.int64]:
        """Rows of all items, `(n_items,)`, most interactions first; of equal counts, the lower row first."""
        return np.argsort(-self.counts, kind="stable") + 1

    def fingerprint(self) -> str:
        """
        Return a short hash, in hexadecimal, of the raw ids in the order of their rows.

        Checkpoints keep it, so it depends on the ids alone, not on Arrow's version nor on how the array was made.
        """
        digest = hashlib.blake2b(digest_size=8)
        if self.n_items:
            _, ends, text = self.item_ids.buffers()
            begin = self.item_ids.offset
            offsets = np.frombuffer(ends, dtype=np.int32)[begin : begin + self.n_items + 1]
            digest.update(np.diff(offsets).astype("<i4").data)
            digest.update(memoryview(text)[offsets[0] : offsets[-1]])
        return digest.hexdigest()

    def with_metadata_of(self, other: "Catalog") -> "Catalog":
        """
        Give the same rows with what another catalog knows about their items (titles and the like) where this one
        knows nothing.
        """
        places = pc.index_in(self.item_ids, value_set=other.item_ids)
        table = self.table
        for column in other.table.schema:
            if column.name in ("row", "item_id", "count"):
                continue
            theirs = _column(other.table, column.name).take(places)
            if column.name not in table.column_names:
                table = table.append_column(column.name, theirs)
                continue
            ours = _column(table, column.name)
            if theirs.type != ours.type and not pa.types.is_string(ours.type):
                continue
            is_blank = _is_blank(ours) if pa.types.is_string(ours.type) else ours.is_null()
            if not pc.any(pc.and_(is_blank, theirs.is_valid())).as_py():
                continue
            filled = pc.if_else(is_blank, theirs.cast(ours.type), ours)
            table = table.set_column(table.column_names.index(column.name), column.name, filled)
        return self if table is self.table else Catalog(table)

    @cached_property
    def titles(self) -> list[str] | None:
        """What to show for rows `1..n_items` (the raw id where an item has no title), or `None` without titles."""
        if "title" not in self.table.column_names:
            return None
        return self._shown.to_pylist()

    def encode(self, item_ids: Iterable[str | int]) -> npt.NDArray[np.int64]:
        """
        Rows of raw ids, `(n,)`. Integers stand for their decimal text.

        Raises:
            ValueError: if an id is not in the catalog; the message names it.
        """
        rows, ids = self._look_up(item_ids)
        if not rows.all():
            unknown = ids.filter(pa.array(rows == 0)).unique().to_pylist()
            shown = ", ".join(repr(item_id) for item_id in unknown[:5])
            more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
            raise ValueError(
                f"`item_ids` must be in the catalog of {self.n_items:,} items, these are not: {shown}{more}. "
                "`encode_known` leaves unknown ids out."
            )
        return rows

    def rows_of(self, item_ids: Iterable[str | int]) -> npt.NDArray[np.int64]:
        """Rows of raw ids, `(n,)`; 0 where the catalog has none."""
        return self._look_up(item_ids)[0]

    def encode_known(self, item_ids: Iterable[str | int]) -> tuple[npt.NDArray[np.int64], int]:
        """Rows of the raw ids that the catalog has, in their order, and how many ids it does not have."""
        rows, _ = self._look_up(item_ids)
        known = rows[rows > 0]
        return known, len(rows) - len(known)

    def decode(self, rows: Any) -> Any:
        """
        Raw ids of rows: a list of strings for `(n,)` rows, nested lists for more axes (`recommend` gives `[b, k]`).

        Raises:
            ValueError: if a row is not in 1..n_items.
        """
        return self._take(self.item_ids, rows)

    def describe(self, rows: Any) -> Any:
        """Titles of rows, or raw ids where there is none; shaped as `decode`'s answer."""
        return self._take(self._shown, rows)

    def find(self, text: str, limit: int = 10) -> npt.NDArray[np.int64]:
        """
        Rows of the items whose raw id or title a text is about; `(n,)` with n at most `limit`.

        A title has to contain every word of the text, in any order, whatever the case and the accents; articles need
        not be there: "the godfather" finds "Godfather, The (1972)". The item of exactly this id or title comes first,
        then those whose title is that but for articles and the year, then the most popular.
        """
        words = _plain_words(pa.array([text]))[0].as_py().split()
        significant = [word for word in words if word not in _ARTICLES] or words
        exact = pc.or_(pc.equal(self.item_ids, text), pc.equal(pc.utf8_lower(self._shown), text.lower()))
        contained = pc.or_(exact, pc.match_substring(self.item_ids, text, ignore_case=True))
        contained = pc.or_(contained, pc.match_substring(self._shown, text, ignore_case=True))
        is_name = exact
        if words:
            texts, names = self._search_texts
            is_name = pc.or_(exact, pc.equal(names, " ".join(significant)))
            has_all = pc.match_substring(texts, significant[0])
            for word in significant[1:]:
                has_all = pc.and_(has_all, pc.match_substring(texts, word))
            contained = pc.or_(contained, has_all)
        found = np.flatnonzero(contained.to_numpy(zero_copy_only=False))
        differs = (~marks.to_numpy(zero_copy_only=False)[found] for marks in (is_name, exact))
        best_first = np.lexsort((-self.counts[found], *differs))
        return found[best_first][:limit] + 1

    @cached_property
    def _shown(self) -> pa.StringArray:
        """The title of each item, or its raw id where it has none."""
        if "title" not in self.table.column_names:
            return self.item_ids
        titles = _column(self.table, "title").cast(pa.string())
        return pc.if_else(_is_blank(titles), self.item_ids, titles)

    @cached_property
    def _search_texts(self) -> tuple[pa.StringArray, pa.StringArray]:
        """Return what is shown for each item as plain words, and the same without articles and a year at its end."""
        texts = _plain_words(self._shown)
        names = pc.replace_substring_regex(texts, rf"\b(?:{'|'.join(_ARTICLES)})\b", "")
        names = pc.replace_substring_regex(names, r"\b\d{4}\s*$", "")
        return texts, pc.utf8_trim_whitespace(pc.replace_substring_regex(names, r"\s+", " "))

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {item_id: row for row, item_id in enumerate(self.item_ids.to_pylist(), start=1)}

    def _look_up(self, item_ids: Iterable[str | int]) -> tuple[npt.NDArray[np.int64], pa.StringArray]:
        """Rows of raw ids, 0 where the catalog has none, and the ids as Arrow strings."""
        ids = _as_strings(item_ids)
        if len(ids) <= _SHORT and self.n_items > _MOST_IN_A_DICT:
            rows = self._scan(ids)
        elif len(ids) <= _SHORT:
            row_of = self._row_of
            rows = np.fromiter((row_of.get(item_id, 0) for item_id in ids.to_pylist()), np.int64, count=len(ids))
        else:
            index = pc.index_in(ids, value_set=self.item_ids)
            rows = pc.fill_null(index, -1).to_numpy(zero_copy_only=False).astype(np.int64) + 1
        return rows, ids

    def _scan(self, ids: pa.StringArray) -> npt.NDArray[np.int64]:
        """Look for a few ids in all the catalog, without an index of it."""
        asked = ids.unique()
        found = pc.index_in(self.item_ids, value_set=asked)
        places = np.flatnonzero(found.is_valid().to_numpy(zero_copy_only=False))
        rows = np.zeros(len(asked), dtype=np.int64)
        rows[found.take(pa.array(places)).to_numpy()] = places + 1
        return rows[pc.index_in(ids, value_set=asked).to_numpy()]

    def _take(self, values: pa.StringArray, rows: Any) -> Any:
        rows = np.asarray(rows)
        if rows.size and not np.issubdtype(rows.dtype, np.integer):
            raise TypeError(f"`rows` must be integers, got {rows.dtype}.")
        if rows.size and (rows.min() < 1 or rows.max() > self.n_items):
            wrong = rows[(rows < 1) | (rows > self.n_items)].ravel()
            raise ValueError(
                f"`rows` must be in 1..{self.n_items} (row 0 is padding), got {', '.join(map(str, wrong[:5]))}."
            )
        taken = np.array(values.take(pa.array(rows.ravel().astype(np.int64) - 1)).to_pylist(), dtype=object)
        return taken.reshape(rows.shape).tolist()


def check_catalog_fits(config: Any, catalog: Catalog, name: str = "`catalog`") -> None:
    r"""
    Do nothing where a catalog is the one whose rows a model knows.

    Checkpoints without `catalog_fingerprint`, such as those of earlier versions, are compared by size alone.

    Args:
        config ([`SeqRecConfig`]): The model's configuration.
        catalog ([`Catalog`]): What its rows are said to stand for.
        name (`str`, *optional*): What the error calls the catalog, such as its file.

    Raises:
        ValueError: if the catalog has another number of items, other items, or the same in another order.
    """
    if catalog.n_items != config.n_items:
        raise ValueError(
            f"{name} has {catalog.n_items:,} items, but the model has {config.n_items:,}. Pass the catalog that was "
            f"saved with the model; a new model needs `vocab_size={type(config).__name__}.vocab_size_for("
            f"{catalog.n_items})` for this one."
        )
    # A configuration class that came with an older checkpoint has no such field.
    expected, found = getattr(config, "catalog_fingerprint", None), catalog.fingerprint()
    if expected not in (None, found):
        raise ValueError(
            f"{name} is not the model's: it has as many items, but other ones or another order (fingerprint {found}, "
            f"the model's {expected}), so each row would stand for another item. Pass the catalog that was saved with "
            "the model, or carry the model over to this one with `hf-seqrec adapt`."
        )


def _download(name: str, repo_type: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(name, CATALOG_FILE, repo_type=repo_type, revision=revision))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        raise FileNotFoundError(
            f"`name_or_path` must be a folder with a {CATALOG_FILE}, or a {repo_type} on the Hub that has one, got "
            f"{name!r}: {error}"
        ) from error


def _check_table(table: pa.Table) -> None:
    missing = [name for name in ("row", "item_id", "count") if name not in table.column_names]
    if missing:
        raise ValueError(
            f"a catalog needs the columns row, item_id and count; {', '.join(missing)} missing, found "
            f"{', '.join(table.column_names) or 'no columns'}."
        )
    rows = table["row"].to_numpy()
    if not np.array_equal(rows, np.arange(1, len(rows) + 1)):
        raise ValueError(f"`row` must be 1..{len(rows)} in order, without gaps (row 0 is padding).")
    ids = table["item_id"]
    if ids.type != pa.string():
        raise ValueError(f"`item_id` must be strings, found {ids.type}.")
    if pc.any(_is_blank(ids)).as_py():
        raise ValueError("`item_id` must not be empty, found an empty id.")
    if pc.count_distinct(ids).as_py() != len(ids):
        counted = ids.value_counts()
        repeated = counted.filter(pc.greater(counted.field("counts"), 1)).field("values").to_pylist()
        raise ValueError(f"`item_id` must not repeat, found {repeated[0]!r} more than once.")


def _plain_words(texts: pa.StringArray) -> pa.StringArray:
    """Return texts in lower case, their words without accents and apostrophes, with a space between them."""
    texts = pc.utf8_lower(pc.utf8_normalize(texts, form="NFKD"))
    texts = pc.replace_substring_regex(texts, "[\\p{Mn}'\u2019]", "")
    return pc.utf8_trim_whitespace(pc.replace_substring_regex(texts, r"[^\p{L}\p{N}]+", " "))


def _is_blank(values: Any) -> Any:
    return pc.fill_null(pc.equal(values, ""), True)


def _column(table: pa.Table, name: str) -> Any:
    """Return a column as one array: a table of one chunk or none keeps its buffers."""
    column = table[name]
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _as_strings(item_ids: Any) -> pa.StringArray:
    if isinstance(item_ids, str):
        raise TypeError(f"`item_ids` must be a list of raw ids, got one string {item_ids!r}. Put it into a list.")
    if isinstance(item_ids, pa.ChunkedArray):
        item_ids = item_ids.combine_chunks()
    if isinstance(item_ids, np.ndarray | pa.Array):
        return _array_as_strings(pa.array(item_ids) if isinstance(item_ids, np.ndarray) else item_ids)
    ids = item_ids if isinstance(item_ids, Sequence) else list(item_ids)
    return pa.array([item_id if isinstance(item_id, str) else _integer_text(item_id) for item_id in ids], pa.string())


def _array_as_strings(item_ids: pa.Array) -> pa.StringArray:
    if pa.types.is_dictionary(item_ids.type):
        item_ids = item_ids.dictionary_decode()
    is_text = pa.types.is_string(item_ids.type) or pa.types.is_large_string(item_ids.type)
    if len(item_ids) and not is_text and not pa.types.is_integer(item_ids.type):
        raise TypeError(f"`item_ids` must be strings (or integers), got an array of {item_ids.type}.")
    return item_ids.cast(pa.string())


def _integer_text(item_id: Any) -> str:
    if isinstance(item_id, (int, np.integer)) and not isinstance(item_id, bool):
        return str(item_id)
    raise TypeError(f"`item_ids` must be strings (or integers), got {item_id!r} of type {type(item_id).__name__}.")
