"""Fixtures that read raw logs."""

import pytest


@pytest.fixture
def engine(tmp_path_factory):
    """DuckDB with a folder of its own."""
    from hf_seqrec.ingest.engines import open_engine

    engine = open_engine("duckdb", tmp_path_factory.mktemp("work"))
    yield engine
    engine.close()


@pytest.fixture
def read_log(engine):
    """Read files or a table; options are those of `InteractionsArguments`."""
    from hf_seqrec.ingest.log_files import RawFile
    from hf_seqrec.ingest.read_log import InteractionsArguments, read_interactions

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
