"""What every test starts from: a private Hugging Face cache, its share of the processors, fixed seeds."""

import os
import random
import sys
import tempfile

import pytest

# All of this must be set before torch or a Hugging Face library is imported. Each xdist worker has a cache of its own:
# transformers does not lock the folder into which it copies remote code.
_CACHE = tempfile.TemporaryDirectory(prefix="hf-seqrec-tests-", ignore_cleanup_errors=True)
os.environ["HF_HOME"] = _CACHE.name
for _name in ("HF_HUB_CACHE", "HF_DATASETS_CACHE", "HF_MODULES_CACHE", "HF_EVALUATE_CACHE", "HF_METRICS_CACHE"):
    os.environ.pop(_name, None)
# A worker's threads that spin on a processor of another's would slow both down many times.
_THREADS = max(1, (os.cpu_count() or 1) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
os.environ.setdefault("OMP_NUM_THREADS", str(_THREADS))
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Uploads go the way that tests/hub_server.py understands.
os.environ["HF_HUB_DISABLE_XET"] = "1"
# Pictures are drawn without a screen.
os.environ["MPLBACKEND"] = "agg"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    gpu_tests = [item for item in items if "gpu" in item.keywords]
    if gpu_tests:
        import torch

        if not torch.cuda.is_available():
            for item in gpu_tests:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True)
def _seeds() -> None:
    """Seed the global generators, so that no test depends on the ones before it."""
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture
def make_sequences():
    """Sequences from lists of rows, one per user; the catalog has as many items as needed."""
    import numpy as np
    import pyarrow as pa

    from hf_seqrec.data.catalog import Catalog
    from hf_seqrec.data.sequences import Sequences

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
