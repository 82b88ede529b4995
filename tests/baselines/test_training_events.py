import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_seqrec.baselines.training_events import training_events
from hf_seqrec.data.catalog import Catalog
from hf_seqrec.data.leave_one_out import leave_one_out
from hf_seqrec.data.sequences import load_sequences
from hf_seqrec.data.streaming import StreamedHistories
from hf_seqrec.data.windows import sliding_windows
from tests.helpers import sequences_of


def test_a_view_by_hand():
    # The last two events of each user are held out; the third user has one event left, too few to train on.
    splits = leave_one_out(sequences_of([1, 2, 3, 4], [4, 3, 2, 1, 2], [1, 2, 3], n_items=6))
    events = training_events(splits.train)
    assert events.item_rows.tolist() == [1, 2, 4, 3, 2]
    assert events.offsets.tolist() == [0, 2, 5]
    assert events.vocab_size == 7
    assert events.histories().tolist() == [0, 0, 1, 1, 1]
    np.testing.assert_array_equal(events.item_counts(), splits.train.item_counts())


def test_what_is_held_out_is_refused():
    splits = leave_one_out(sequences_of([1, 2, 3, 4]))
    with pytest.raises(ValueError, match="must be the training view of a split, got one with targets"):
        training_events(splits.test)


def test_windows_are_refused():
    splits = leave_one_out(sequences_of(list(range(1, 20))))
    with pytest.raises(ValueError, match="`histories` must be whole, got windows"):
        training_events(sliding_windows(splits.train, 5, 2))


@pytest.mark.parametrize("window", ["last", "sliding"])
def test_streamed_histories_are_those_in_memory(tmp_path, random_histories, window):
    histories = random_histories(0, n_users=50)
    (tmp_path / "sequences").mkdir()
    table = pa.table(
        {
            "user_id": [f"u{user}" for user in range(50)],
            "item_ids": pa.array(histories, pa.list_(pa.int32())),
            "timestamps": pa.array([list(range(len(history))) for history in histories], pa.list_(pa.int64())),
        }
    )
    pq.write_table(table.slice(0, 30), tmp_path / "sequences/part-0.parquet", row_group_size=8)
    pq.write_table(table.slice(30), tmp_path / "sequences/part-1.parquet", row_group_size=8)
    Catalog.from_items([f"i{row}" for row in range(1, 13)]).save(tmp_path)
    (tmp_path / "statistics.json").write_text(json.dumps({"n_users": 50}))
    # The second of two processes, with windows far shorter than the histories.
    stream = StreamedHistories(tmp_path, batch_size=4, max_length=3, window=window, rank=1, world_size=2)
    streamed, in_memory = training_events(stream), training_events(leave_one_out(load_sequences(tmp_path)).train)
    np.testing.assert_array_equal(streamed.item_rows, in_memory.item_rows)
    np.testing.assert_array_equal(streamed.offsets, in_memory.offsets)
    assert streamed.vocab_size == in_memory.vocab_size
