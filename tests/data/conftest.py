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
