import subprocess
import sys

import pytest

from hf_seqrec.ingest.engines import open_engine


@pytest.mark.parametrize("package", ["ibis", "duckdb"])
def test_without_the_extra(package, tmp_path):
    code = f"""
import sys
sys.modules[{package!r}] = None
from hf_seqrec.ingest.engines import open_engine
try:
    open_engine("duckdb", {str(tmp_path)!r})
except ImportError as error:
    assert 'pip install "hf-seqrec[data]"' in str(error), error
else:
    raise AssertionError("no error")
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_spark(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyspark", None)
    monkeypatch.setitem(sys.modules, "pyspark.sql", None)
    with pytest.raises(ImportError, match=r"hf-seqrec\[data,spark\]"):
        open_engine("pyspark", tmp_path)


def test_no_such_engine(tmp_path):
    with pytest.raises(ValueError, match="one of duckdb, pyspark, got 'polars'"):
        open_engine("polars", tmp_path)


def test_a_memory_limit_that_is_none(tmp_path):
    with pytest.raises(ValueError, match=r"`memory_limit` must be a size such as .6GB., got 'much'"):
        open_engine("duckdb", tmp_path, "much")
