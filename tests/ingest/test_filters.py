import pyarrow as pa
import pytest

from hf_seqrec.ingest.engines import open_engine
from hf_seqrec.ingest.filters import apply_filters, drop_repeats, first_users, k_core, most_recent, popular_items
from hf_seqrec.ingest.read_log import InteractionsArguments


@pytest.fixture
def engine(tmp_path):
    engine = open_engine("duckdb", tmp_path)
    yield engine
    engine.close()


def events_of(engine, *events):
    """A table of (user, item, time) in the order of the log."""
    import ibis

    users, items, times = zip(*events, strict=True)
    table = pa.table({"user": users, "item": items, "time": times, "file_order": range(len(events))})
    return engine.materialize("events", ibis.memtable(table))


def kept(table):
    assert table.columns == ("user", "item", "time", "file_order")
    return table.order_by("file_order").file_order.to_pyarrow().to_pylist()


@pytest.mark.parametrize(
    ("repeats", "expected"),
    [("keep", [0, 1, 2, 3, 4, 5]), ("first", [0, 1, 5]), ("last", [1, 4, 5]), ("consecutive", [0, 1, 2, 5])],
)
def test_repeats(engine, repeats, expected):
    # By time user 0 has 1 2 1 1; item 1 at time 3 comes twice, in the order of the file.
    events = events_of(engine, (0, 1, 1), (0, 2, 2), (0, 1, 3), (0, 1, 3), (0, 1, 3), (1, 1, 0))
    assert kept(drop_repeats(events, repeats)) == expected


def test_how_many(engine):
    events = events_of(engine, (0, 1, 5), (1, 2, 3), (0, 2, 4), (2, 3, 1), (0, 1, 5), (2, 3, 2))
    assert kept(first_users(events, 2)) == [0, 1, 2, 4]
    # All items have two events each.
    assert kept(popular_items(events, 2)) == [0, 1, 2, 4]
    # Events of the same time in the order of the file.
    assert kept(most_recent(events, 1)) == [1, 4, 5]
    assert kept(most_recent(events, 2)) == [0, 1, 3, 4, 5]


def test_k_core_goes_to_the_fixed_point(engine):
    # Dropping item 3 (one event) leaves user 2 with one; without it item 2 has one; without that user 1 has one.
    pairs = [(0, 1), (0, 1), (1, 1), (1, 2), (2, 2), (2, 3)]
    events = [(user, item, 0) for user, item in pairs]
    assert kept(k_core(engine, events_of(engine, *events), 1, 1)) == [0, 1, 2, 3, 4, 5]
    assert kept(k_core(engine, events_of(engine, *events), 2, 2)) == [0, 1]
    assert kept(k_core(engine, events_of(engine, *events), 1, 2)) == [0, 1, 2, 3, 4]


def test_everything_filtered_away(engine):
    with pytest.raises(ValueError, match=r"no interactions are left.*`min_user_events`=2.*`min_item_events`=1"):
        k_core(engine, events_of(engine, (0, 1, 0)), 2, 1)


def test_one_after_the_other(engine):
    events = events_of(engine, (0, 1, 0), (0, 1, 1), (0, 2, 2), (1, 1, 3), (1, 2, 4), (1, 3, 5), (2, 1, 6))
    arguments = InteractionsArguments(repeats="first", max_users=2, max_items=2, last_n=1, min_user_events=1)
    steps = [(name, kept(table)) for name, table in apply_filters(engine, events, arguments)]
    assert steps == [
        ("repeats=first", [0, 2, 3, 4, 5, 6]),
        ("max_users=2", [0, 2, 3, 4, 5]),
        ("max_items=2", [0, 2, 3, 4]),
        ("last_n=1", [2, 4]),
    ]
    with pytest.raises(Exception, match="does not exist"):
        events.to_pyarrow()
