"""What computes the Ibis expressions: DuckDB inside this process, or Spark where one machine is not enough."""

import functools
import glob
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..installing import install_hint
from .columns import with_common_types
from .log_files import RawFile, partition_values
from .text_files import link, readable, with_one_line_end

if TYPE_CHECKING:
    import ibis
    import pyarrow as pa

ENGINES = ("duckdb", "pyspark")
# From the columns that were read to those that are wanted.
Prepare = Callable[["ibis.Table"], dict[str, Any]]


class Rejected(NamedTuple):
    """
    Lines that are no records: a wrong number of fields, invalid UTF-8, a quote that never closes.

    Fields:
        n: How many.
        place, what: Where the first is and what is wrong with it; empty if there is none.
    """

    n: int = 0
    place: str = ""
    what: str = ""


def open_engine(name: str, work_folder: str | Path, memory_limit: str | None = None) -> Any:
    r"""
    Open an engine that keeps what does not fit into memory in `work_folder`.

    Args:
        name (`str`): `"duckdb"` or `"pyspark"`.
        work_folder (`str`): An empty folder.
        memory_limit (`str`, *optional*): Such as `"6GB"`: what DuckDB or Spark's driver may take.

    Raises:
        ImportError: if it is not installed.
        ValueError: if there is no such engine.
    """
    if name not in ENGINES:
        raise ValueError(f"`engine` must be one of {', '.join(ENGINES)}, got {name!r}.")
    return {"duckdb": DuckDBEngine, "pyspark": SparkEngine}[name](Path(work_folder), memory_limit)


class DuckDBEngine:
    """DuckDB in this process. Tables stand in a file of `work_folder`, what a sort or join spills beside it."""

    def __init__(self, work_folder: Path, memory_limit: str | None = None):
        try:
            import ibis

            settings = {"temp_directory": str(work_folder / "spilled")}
            if memory_limit is not None:
                settings["memory_limit"] = memory_limit
            self.con = ibis.duckdb.connect(str(work_folder / "tables.duckdb"), **settings)
        except ImportError as error:
            raise ImportError(
                f"Building a dataset from a log needs Ibis and DuckDB: {install_hint('data')}. "
                "Finished dataset folders load without them."
            ) from error
        except Exception as error:
            if memory_limit is None or "memory" not in str(error).lower():
                raise
            raise ValueError(f'`memory_limit` must be a size such as "6GB", got {memory_limit!r}.') from error
        self.con.raw_sql("SET enable_progress_bar = false")
        self.work_folder = work_folder
        self.rejected = Rejected()

    def read(
        self, raw: RawFile, columns: dict[str, str], prepare: Prepare | None = None
    ) -> "tuple[ibis.Table, Rejected]":
        r"""
        Read columns of a log.

        Args:
            raw (`RawFile`): The log.
            columns (`dict[str, str]`): What to call each column, and its name in the log. Text of any kind comes as
                strings, lists as lists of strings.
            prepare (`Callable`, *optional*): Makes what is wanted of these columns, as they are when left out.

        Returns:
            A table of these columns with `file_order` (int64, from 0), and what of the log is no record.
        """
        prepare = prepare or _unchanged
        if raw.format in ("parquet", "table"):
            table = self._read_parquet(raw, columns)
            return table.select(**prepare(table), file_order=table.file_order), Rejected()
        log: Any = None
        for paths, constants in _same_partition(raw, columns.values()):
            copies = {self._local(raw, path): path for path in paths}
            try:
                log = self._append(log, self._text(raw, copies, columns, constants, prepare))
            except Exception as error:
                if raw.format != "delimited" or "invalid state" not in str(error):
                    raise
                copies = {with_one_line_end(path, self.work_folder): path for path in paths}
                log = self._append(log, self._text(raw, copies, columns, constants, prepare))
            self._note_rejected(raw, copies)
        rejected, self.rejected = self.rejected, Rejected()
        return log.mutate(file_order=log.rowid().cast("int64")), rejected

    def _text(
        self,
        raw: RawFile,
        copies: dict[Path, Path],
        columns: dict[str, str],
        constants: dict[str, str | None],
        prepare: Prepare,
    ) -> "ibis.Table":
        paths = [_pattern(path) for path in copies]
        if raw.format == "json":
            # A line that is no JSON object becomes a record without any value.
            kinds = {name: "VARCHAR[]" if name in raw.lists else "VARCHAR" for name in columns.values()}
            kinds = {name: kind for name, kind in kinds.items() if name not in constants}
            form = "array" if raw.is_array else "newline_delimited"
            table = self.con.read_json(
                paths, format=form, columns=kinds, ignore_errors=not raw.is_array, hive_partitioning=False
            )
            found = {name: table[name] for name in kinds}
        else:
            # Not by name: DuckDB takes two names for one that differ in case only.
            places = [f"c{number}" for number in range(len(raw.own_columns))]
            table = self.con.read_csv(
                paths,
                columns=dict.fromkeys(places, "VARCHAR"),
                header=raw.header,
                auto_detect=False,
                delim=raw.delimiter,
                quote=raw.quote,
                escape=raw.quote,
                encoding=raw.encoding,
                store_rejects=True,
                rejects_limit=0,
                hive_partitioning=False,
            )
            found = {name: table[place] for name, place in zip(raw.own_columns, places, strict=True)}
        table = table.select(**_chosen(columns, found, constants))
        return table.select(**prepare(table))

    def _append(self, log: Any, part: "ibis.Table") -> "ibis.Table":
        if log is None:
            return self.materialize("log", part)
        self.con.raw_sql(f"INSERT INTO {log.get_name()} {self.con.compile(part)}")
        return log

    def _read_parquet(self, raw: RawFile, columns: dict[str, str]) -> "ibis.Table":
        import ibis
        import pyarrow.parquet as pq

        tables, n_before = {}, 0
        for path in raw.paths or [_written(raw, self.work_folder)]:
            table = self.con.read_parquet(
                _pattern(self._local(raw, path)), file_row_number=True, hive_partitioning=False
            )
            # By place: of two names that differ in case only, DuckDB changes one.
            found = {name: table[place] for name, place in zip(raw.own_columns, table.columns, strict=False)}
            chosen = _chosen(columns, found, partition_values(path))
            tables[str(path)] = table.select(**chosen, file_order=(table.file_row_number + n_before).cast("int64"))
            n_before += pq.read_metadata(path).num_rows
        parts = with_common_types(tables, columns)
        return parts[0] if len(parts) == 1 else ibis.union(*parts)

    def _local(self, raw: RawFile, path: Path) -> Path:
        """Return a file that DuckDB reads, whatever the compression or the characters in its name."""
        if raw.format in ("delimited", "json"):
            path = readable(path, self.work_folder, _DUCKDB_UNPACKS, raw.format == "json")
        has_backslash = os.sep != "\\" and "\\" in str(path)
        return link(path, self.work_folder) if has_backslash and glob.has_magic(str(path)) else path

    def _note_rejected(self, raw: RawFile, copies: dict[Path, Path]) -> None:
        if raw.format != "delimited":
            return
        scans = "reject_errors AS e JOIN reject_scans AS s USING (scan_id, file_id)"
        ((n,),) = self.con.raw_sql(f"SELECT count(DISTINCT (file_id, line)) FROM {scans}").fetchall()
        if not n:
            return
        first = f"SELECT file_path, line, error_type FROM {scans} ORDER BY file_id, line LIMIT 1"
        ((path, line, kind),) = self.con.raw_sql(first).fetchall()
        self.con.raw_sql("DELETE FROM reject_errors")
        if self.rejected.n:
            self.rejected = self.rejected._replace(n=self.rejected.n + n)
        else:
            place = f"{copies[Path(path)]}, line {line}"
            self.rejected = Rejected(
                n, place, _WRONG_LINES.get(kind, "it is no record").format(n=len(raw.own_columns))
            )

    def materialize(self, name: str, table: "ibis.Table") -> "ibis.Table":
        """Compute a table into one of its own, whose name begins with `name`."""
        import ibis

        return self.con.create_table(ibis.util.gen_name(name), table)

    def drop(self, table: "ibis.Table") -> None:
        """Forget a materialised table."""
        # Not `con.drop_table`: Ibis 12 writes no name into the statement with sqlglot 30.
        self.con.raw_sql(f"DROP TABLE {table.get_name()}")

    def stream(self, table: "ibis.Table") -> "Iterator[pa.RecordBatch]":
        """Compute a table batch by batch, in its order."""
        # Not `to_pyarrow_batches`: a cursor copies every row once more.
        yield from self.con.con.sql(self.con.compile(table)).to_arrow_reader(1_000_000)

    def close(self) -> None:
        """Let go of the tables."""
        self.con.disconnect()


class SparkEngine:
    """
    Spark: the session that is active (a cluster's), or one on this machine.

    Text in which a field may span lines is read by one worker per file: for many workers give many files.
    """

    def __init__(self, work_folder: Path, memory_limit: str | None = None):
        try:
            import ibis
            from pyspark.sql import SparkSession

            backend = ibis.pyspark
        except (ImportError, AttributeError) as error:
            raise ImportError(
                f'`engine="pyspark"` needs Ibis with PySpark and Java 17 or newer: {install_hint("data,spark")}.'
            ) from error
        self.work_folder = work_folder
        session = SparkSession.getActiveSession()
        self._is_ours = session is None
        if session is None:
            builder = (
                SparkSession.builder.appName("hf_seqrec")
                .config("spark.ui.enabled", "false")
                .config("spark.ui.showConsoleProgress", "false")
                .config("spark.log.level", "ERROR")
                .config("spark.local.dir", str(work_folder / "spilled"))
                .config("spark.sql.warehouse.dir", str(work_folder / "tables"))
                .config("spark.sql.catalogImplementation", "in-memory")
            )
            if memory_limit is not None:
                builder = builder.config("spark.driver.memory", memory_limit.upper().removesuffix("B"))
            session = builder.getOrCreate()
        # A field too many or too few is noticed only if all are read.
        session.conf.set("spark.sql.csv.parser.columnPruning.enabled", "false")
        session.conf.set("spark.sql.session.timeZone", "UTC")
        # Two columns may have names that differ in case only.
        session.conf.set("spark.sql.caseSensitive", "true")
        self.session = session
        self.con = backend.connect(session)
        self.tables: list[str] = []

    def read(
        self, raw: RawFile, columns: dict[str, str], prepare: Prepare | None = None
    ) -> "tuple[ibis.Table, Rejected]":
        """Read columns of a log; the arguments are those of `DuckDBEngine.read`. `file_order` rises, with gaps."""
        import ibis
        from pyspark.sql import functions

        prepare = prepare or _unchanged
        tables, views = {}, []
        for path in raw.paths or [_written(raw, self.work_folder)]:
            frame = self._frame(raw, str(self._local(raw, path)), columns)
            views.append(ibis.util.gen_name("file"))
            frame.createTempView(views[-1])
            table = self.con.table(views[-1])
            names = [name for name in table.columns if name != _CORRUPT]
            found = {name: table[place] for name, place in self._places(raw, names).items()}
            chosen = _chosen(columns, found, partition_values(path))
            if _CORRUPT in table.columns:
                chosen[_CORRUPT] = table[_CORRUPT]
            tables[str(path)] = table.select(**chosen)
        parts = with_common_types(tables, columns)
        # The partitions of a union stand in the order of what was united.
        # Not Ibis' union, which changes their order.
        frames = [self.session.sql(self.con.compile(part)) for part in parts]
        frame = functools.reduce(lambda left, right: left.unionByName(right), frames)
        name = ibis.util.gen_name("log")
        numbered = frame.withColumn("file_order", functions.monotonically_increasing_id())
        numbered.write.saveAsTable(name, format="parquet")
        for view in views:
            self.session.catalog.dropTempView(view)
        self.tables.append(name)
        table = self.con.table(name)
        rejected = Rejected()
        if raw.format == "delimited":
            rejected = self._rejected(raw, table)
            table = table.filter(table[_CORRUPT].isnull()).drop(_CORRUPT)
        return table.select(**prepare(table), file_order=table.file_order), rejected

    def _rejected(self, raw: RawFile, table: "ibis.Table") -> Rejected:
        wrong = table.filter(table[_CORRUPT].notnull())
        n = wrong.count().to_pyarrow().as_py()
        if not n:
            return Rejected()
        first = wrong.file_order.min().to_pyarrow().as_py()
        row = table.filter(table.file_order < first).count().to_pyarrow().as_py()
        text = wrong.filter(wrong.file_order == first)[_CORRUPT].to_pyarrow()[0].as_py()
        return Rejected(n, raw.place(row), f"expected {len(raw.own_columns)} fields, got {text!r}")

    def _local(self, raw: RawFile, path: Path) -> Path:
        """Return a file that Spark reads, whatever the compression or the characters in its name."""
        if raw.format in ("delimited", "json"):
            path = readable(path, self.work_folder, _SPARK_UNPACKS, raw.format == "json")
        is_pattern = any(character in str(path) for character in "*?[]{}\\,")
        # Spark takes a file whose name begins like this for one of its own.
        return link(path, self.work_folder) if is_pattern or path.name.startswith(("_", ".")) else path

    def _places(self, raw: RawFile, names: list[str]) -> dict[str, str]:
        if raw.format == "json":
            return {name: name for name in names}
        return dict(zip(raw.own_columns, names, strict=False))

    def _frame(self, raw: RawFile, path: str, columns: dict[str, str]) -> Any:
        # No columns from the names of folders: those that are wanted are added.
        files = {"recursiveFileLookup": True}
        if raw.format in ("parquet", "table"):
            return self.session.read.options(**files).parquet(path)
        if raw.format == "json":
            keys = [name for name in dict.fromkeys(columns.values()) if name not in raw.partitions]
            kinds = {name: "ARRAY<STRING>" if name in raw.lists else "STRING" for name in keys}
            text = ", ".join(f"`{name}` {kind}" for name, kind in kinds.items())
            return self.session.read.options(**files).json(path, schema=text, multiLine=raw.is_array)
        text = ", ".join(f"`c{number}` STRING" for number in range(len(raw.own_columns)))
        return self.session.read.options(**files).csv(
            path,
            schema=f"{text}, `{_CORRUPT}` STRING",
            columnNameOfCorruptRecord=_CORRUPT,
            sep=raw.delimiter,
            quote=raw.quote,
            escape=raw.quote,
            multiLine=bool(raw.quote),
            header=raw.header,
            enforceSchema=True,
            encoding=raw.encoding,
        )

    def materialize(self, name: str, table: "ibis.Table") -> "ibis.Table":
        """Compute a table into one of its own, whose name begins with `name`."""
        import ibis

        self.tables.append(ibis.util.gen_name(name))
        return self.con.create_table(self.tables[-1], table)

    def drop(self, table: "ibis.Table") -> None:
        """Forget a materialised table."""
        name = table.get_name().split(".")[-1]
        self.session.sql(f"DROP TABLE `{name}`")
        self.tables.remove(name)

    def stream(self, table: "ibis.Table") -> "Iterator[pa.RecordBatch]":
        """Compute a table batch by batch, in its order."""
        import ibis
        import pyarrow.parquet as pq

        # Ibis would collect all of it in this process; the parts of a sorted table are written in order.
        folder = self.work_folder / ibis.util.gen_name("sorted")
        self.con.to_parquet_dir(table, folder)
        for path in sorted(folder.glob("part-*.parquet")):
            with pq.ParquetFile(path) as file:
                yield from file.iter_batches(1_000_000)

    def close(self) -> None:
        """Let go of the tables, and of the session if it is ours."""
        for name in self.tables:
            self.session.sql(f"DROP TABLE `{name}`")
        if self._is_ours:
            self.con.disconnect()


_CORRUPT = "_corrupt_record"
# DuckDB knows .zst too, but takes one that was cut short for whole.
_DUCKDB_UNPACKS = (".gz",)
_SPARK_UNPACKS = (".gz", ".bz2")
# What is wrong with a line, by what DuckDB calls it.
_WRONG_LINES = {
    "MISSING COLUMNS": "it must have {n} fields, found fewer",
    "TOO MANY COLUMNS": "it must have {n} fields, found more",
    "UNQUOTED VALUE": "a quote must be closed at the end of its field",
    "LINE SIZE OVER MAXIMUM": "it must be shorter than 2,000,000 bytes",
    "INVALID ENCODING": "it must be UTF-8 text",
}


def _unchanged(table: "ibis.Table") -> dict[str, Any]:
    return {name: table[name] for name in table.columns if name != "file_order"}


def _pattern(path: Path) -> str:
    """Return the pattern that stands for this file and no other."""
    return glob.escape(str(path))


def _chosen(columns: dict[str, str], found: dict[str, Any], constants: dict[str, str | None]) -> dict[str, Any]:
    """Columns under the names that they get; what a file does not have comes from the names of its folders."""
    import ibis

    return {
        name: found[column] if column in found else ibis.literal(constants[column], "string")
        for name, column in columns.items()
    }


def _same_partition(raw: RawFile, columns: Iterable[str]) -> Iterator[tuple[list[Path], dict[str, str | None]]]:
    """Yield files that come one after the other from folders of the same values, and these values."""
    wanted = [name for name in dict.fromkeys(columns) if name in raw.partitions]
    for values, paths in itertools.groupby(raw.paths, lambda path: [partition_values(path)[name] for name in wanted]):
        yield list(paths), dict(zip(wanted, values, strict=True))


def _written(raw: RawFile, folder: Path) -> Path:
    """Write a table that is in no file into one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    assert raw.table is not None
    table = raw.table
    for number, column in enumerate(table.schema):
        # The strings of Polars, and pandas' categories.
        if pa.types.is_string_view(column.type):
            table = table.set_column(number, column.name, table[number].cast(pa.large_string()))
        elif pa.types.is_dictionary(column.type):
            table = table.set_column(number, column.name, table[number].cast(column.type.value_type))
        elif pa.types.is_timestamp(column.type) and column.type.unit == "ns" and column.type.tz is not None:
            # As pandas 2 makes them; Ibis lacks DuckDB 2's type for them. In UTC without a zone they stay exact.
            table = table.set_column(number, column.name, table[number].cast(pa.timestamp("ns")))
    path = folder / f"table-{id(raw.table):x}.parquet"
    pq.write_table(table, path, compression="lz4")
    return path
