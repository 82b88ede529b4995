"""What computes the Ibis expressions: DuckDB inside this process, or Spark where one machine is not enough."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..installing import install_hint
from .log_files import RawFile

if TYPE_CHECKING:
    import ibis
    import pyarrow as pa

ENGINES = ("duckdb", "pyspark")


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

    def read(self, raw: RawFile, columns: list[str]) -> "tuple[ibis.Table, Rejected]":
        """Give columns of a file as a table with `file_order` (int64, from 0), and what of it is no record."""
        if raw.format == "parquet":
            return self._read_parquet(raw, columns), Rejected()
        paths = [str(path) for path in raw.paths]
        if raw.format == "json":
            # A line that is no JSON object becomes a record without any value.
            kinds = dict.fromkeys(columns, "VARCHAR")
            options: dict[str, Any] = {"format": "newline_delimited", "columns": kinds, "ignore_errors": True}
            table = self.materialize("log", self.con.read_json(paths, **options).select(*columns))
            return table.mutate(file_order=table.rowid().cast("int64")), Rejected()
        table = self.con.read_csv(
            paths,
            columns=dict.fromkeys(raw.columns, "VARCHAR"),
            header=raw.header,
            auto_detect=False,
            delim=raw.delimiter,
            quote=raw.quote,
            escape=raw.quote,
            encoding=raw.encoding,
            store_rejects=True,
            rejects_limit=0,
        )
        table = self.materialize("log", table.select(*columns))
        return table.mutate(file_order=table.rowid().cast("int64")), self._rejected()

    def _read_parquet(self, raw: RawFile, columns: list[str]) -> "ibis.Table":
        import ibis
        import pyarrow.parquet as pq

        tables, n_before = [], 0
        for path in raw.paths:
            table = self.con.read_parquet(path, file_row_number=True)
            tables.append(table.select(*columns, file_order=(table.file_row_number + n_before).cast("int64")))
            n_before += pq.read_metadata(path).num_rows
        return tables[0] if len(tables) == 1 else ibis.union(*tables)

    def _rejected(self) -> Rejected:
        scans = "reject_errors AS e JOIN reject_scans AS s USING (scan_id, file_id)"
        ((n,),) = self.con.raw_sql(f"SELECT count(DISTINCT (file_id, line)) FROM {scans}").fetchall()
        if not n:
            return Rejected()
        first = f"SELECT file_path, line, error_message FROM {scans} ORDER BY file_id, line LIMIT 1"
        ((path, line, message),) = self.con.raw_sql(first).fetchall()
        self.con.raw_sql("DELETE FROM reject_errors")
        return Rejected(n, f"{path}, line {line}", str(message).splitlines()[0])

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
        self.session = session
        self.con = backend.connect(session)
        self.tables: list[str] = []

    def read(self, raw: RawFile, columns: list[str]) -> "tuple[ibis.Table, Rejected]":
        """Give columns of a file as a table with `file_order` (int64, rising), and what of it is no record."""
        import ibis
        from pyspark.sql import functions

        frames = [self._frame(raw, str(path)) for path in raw.paths]
        # The partitions of a union stand in the order of what was united.
        frame = functools.reduce(lambda left, right: left.unionByName(right), frames)
        name = ibis.util.gen_name("log")
        numbered = frame.withColumn("file_order", functions.monotonically_increasing_id())
        numbered.write.saveAsTable(name, format="parquet")
        self.tables.append(name)
        table = self.con.table(name)
        if raw.format != "delimited":
            return table.select(*columns, "file_order"), Rejected()
        wrong = table.filter(table[_CORRUPT].notnull())
        n = wrong.count().to_pyarrow().as_py()
        rejected = Rejected()
        if n:
            first = wrong.file_order.min().to_pyarrow().as_py()
            row = table.filter(table.file_order < first).count().to_pyarrow().as_py()
            text = wrong.filter(wrong.file_order == first)[_CORRUPT].to_pyarrow()[0].as_py()
            rejected = Rejected(n, raw.place(row), f"expected {len(raw.columns)} fields, got {text!r}")
        return table.filter(table[_CORRUPT].isnull()).select(*columns, "file_order"), rejected

    def _frame(self, raw: RawFile, path: str) -> Any:
        if raw.format == "parquet":
            return self.session.read.parquet(path)
        text = ", ".join(f"`{name}` STRING" for name in raw.columns)
        if raw.format == "json":
            return self.session.read.json(path, schema=text)
        return self.session.read.csv(
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
