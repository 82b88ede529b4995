import numpy as np
import pyarrow as pa
import pytest

from hf_seqrec.data import Catalog, Sequences


@pytest.fixture
def make_sequences():
    """Sequences from lists of rows, one per user; the catalog has as many items as needed."""

    def make(*histories):
        lengths = [len(history) for history in histories]
        return Sequences(
            item_rows=np.concatenate([np.array(history, dtype=np.int32) for history in histories]),
            offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            catalog=Catalog.from_items([f"item {row}" for row in range(1, max(map(max, histories)) + 1)]),
            user_ids=pa.array([f"user {position}" for position in range(len(histories))]),
        )

    return make


@pytest.fixture
def write_log(tmp_path):
    """Write a file and return its path."""

    def write(name, text):
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


@pytest.fixture
def engine(tmp_path_factory):
    """DuckDB with a folder of its own."""
    from hf_seqrec.data.engines import open_engine

    engine = open_engine("duckdb", tmp_path_factory.mktemp("work"))
    yield engine
    engine.close()


@pytest.fixture
def read_log(engine):
    """Read files or a table; options are those of `InteractionsArguments`."""
    from hf_seqrec.data import InteractionsArguments, RawFile
    from hf_seqrec.data.interactions import read_interactions

    def read(paths, **options):
        return read_interactions(engine, RawFile.open(paths), InteractionsArguments(**options))

    return read


@pytest.fixture
def read_events(read_log):
    """Events of a log as raw ids and time, in the order of the log."""

    def read(paths, **options):
        table = read_log(paths, **options).events.order_by("file_order").to_pyarrow()
        return [(str(row["user_id"]), str(row["item_id"]), row["time"]) for row in table.to_pylist()]

    return read
