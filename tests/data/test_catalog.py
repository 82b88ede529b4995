import hashlib
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_seqrec.data import catalog
from hf_seqrec.data.catalog import Catalog

# What raw ids look like: anything that can be written as UTF-8.
raw_ids = st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, unique=True)


@pytest.fixture
def films() -> Catalog:
    titles = ["Heat", "The Heat", "", None, "heatwave"]
    return Catalog.from_items(
        ["007", " 7", "7", 'a "b"', "Ünï"], count=[3, 9, 2, 1, 9], title=titles, year=[1, 2, 3, 4, 5]
    )


def test_encode_and_decode(films):
    assert (films.n_items, films.vocab_size, len(films)) == (5, 6, 5)
    np.testing.assert_array_equal(films.encode(["7", " 7", "007", "7"]), [3, 2, 1, 3])
    assert films.encode([]).dtype == np.int64
    np.testing.assert_array_equal(films.encode([7, np.int64(7)]), [3, 3])
    assert films.decode([5, 1]) == ["Ünï", "007"]
    assert films.decode(np.array([[1, 2], [3, 4]])) == [["007", " 7"], ["7", 'a "b"']]
    assert films.decode([]) == []


def test_long_lists_take_the_other_path_and_agree(films):
    ids = ["7", "Ünï", " 7", "007"] * 1000
    np.testing.assert_array_equal(films.encode(ids), [3, 5, 2, 1] * 1000)
    rows, unknown = films.encode_known(pa.array([*ids, "nobody"]))
    assert (len(rows), unknown) == (4000, 1)


def test_large_catalogs_are_scanned_for_a_few_ids(films, monkeypatch):
    monkeypatch.setattr(catalog, "_MOST_IN_A_DICT", 4)
    np.testing.assert_array_equal(films.encode(["7", "Ünï", " 7", "007", "7"]), [3, 5, 2, 1, 3])
    rows, unknown = films.encode_known(["nobody", "Ünï", "x", "7"])
    assert (rows.tolist(), unknown) == ([5, 3], 2)
    assert films.encode([]).tolist() == []
    assert films.encode_known(["nobody"])[1] == 1
    assert "_row_of" not in vars(films)


def test_unknown_ids(films):
    with pytest.raises(ValueError, match=r"'x', '700'.*encode_known"):
        films.encode(["7", "x", "700", "x"][::-1])
    rows, unknown = films.encode_known(["7", "x", "007", "700"])
    assert (rows.tolist(), unknown) == ([3, 1], 2)


def test_wrong_types(films):
    with pytest.raises(TypeError, match="one string '7'"):
        films.encode("7")
    with pytest.raises(TypeError, match=r"1\.5 of type float"):
        films.encode([1.5])
    with pytest.raises(TypeError, match="None"):
        films.encode([None])
    with pytest.raises(TypeError, match="integers"):
        films.decode([1.0])


@pytest.mark.parametrize("row", [0, 6, -1])
def test_rows_out_of_range(films, row):
    with pytest.raises(ValueError, match=rf"1\.\.5.*got {row}"):
        films.decode([1, row])


def test_titles_fall_back_to_raw_ids(films):
    assert films.titles == ["Heat", "The Heat", "7", 'a "b"', "heatwave"]
    assert films.describe([3, 1]) == ["7", "Heat"]
    untitled = Catalog.from_items(["x"])
    assert untitled.titles is None
    assert untitled.describe([1]) == ["x"]


def test_find_takes_the_exact_title_first_then_the_popular(films):
    # Rows 2 and 5 have nine events, row 1 is called exactly so.
    assert films.find("heat").tolist() == [1, 2, 5]
    assert films.find("7").tolist() == [3, 2, 1]
    assert films.find("HEAT", limit=2).tolist() == [1, 2]
    assert films.find("nothing").tolist() == []


def test_save_and_load(films, tmp_path):
    films.save(tmp_path / "checkpoint")
    for path in (tmp_path / "checkpoint", tmp_path / "checkpoint" / "catalog.parquet"):
        assert Catalog.from_pretrained(path).table.equals(films.table)


def test_load_says_what_is_wrong(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"catalog\.parquet"):
        Catalog.from_pretrained(tmp_path)
    (tmp_path / "catalog.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(ValueError, match="not a readable Parquet file"):
        Catalog.from_pretrained(tmp_path)


def test_the_fingerprint_depends_on_the_ids_and_their_order_alone():
    # The lengths in bytes, then the text. It must not change, for checkpoints keep it.
    catalog = Catalog.from_items(["a", "é"], count=[5, 3])
    written_out = np.array([1, 2], dtype="<i4").tobytes() + "aé".encode()
    assert catalog.fingerprint() == hashlib.blake2b(written_out, digest_size=8).hexdigest()
    # A slice of a longer array, and a column in two chunks.
    sliced = pa.array(["x", "a", "é", "y"]).slice(1, 2)
    assert Catalog.from_items(sliced, title=["A", None]).fingerprint() == catalog.fingerprint()
    chunks = pa.concat_tables([catalog.table.slice(0, 1), catalog.table.slice(1, 1)])
    assert Catalog(chunks).fingerprint() == catalog.fingerprint()
    for other in (["é", "a"], ["aé", "b"], ["aé"], ["a", "é", "b"]):
        assert Catalog.from_items(other).fingerprint() != catalog.fingerprint()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"row": [1]}, "item_id, count missing, found row"),
        ({"row": [0, 1], "item_id": ["a", "b"], "count": [1, 1]}, r"1\.\.2 in order"),
        ({"row": [1, 2], "item_id": ["a", "a"], "count": [1, 1]}, "'a' more than once"),
        ({"row": [1, 2], "item_id": ["a", ""], "count": [1, 1]}, "empty"),
        ({"row": [1, 2], "item_id": ["a", None], "count": [1, 1]}, "empty"),
        ({"row": [1], "item_id": [7], "count": [1]}, "strings, found int64"),
    ],
)
def test_tables_that_are_no_catalog(columns, message):
    with pytest.raises(ValueError, match=message):
        Catalog(pa.table(columns))


@given(raw_ids)
def test_any_raw_id_comes_back(ids):
    catalog = Catalog.from_items(ids)
    assert catalog.decode(catalog.encode(ids)) == ids
    long = ids * (1100 // len(ids) + 1)
    np.testing.assert_array_equal(catalog.encode(long), np.tile(np.arange(1, len(ids) + 1), len(long) // len(ids)))


def test_a_catalog_needs_neither_ibis_nor_torch(tmp_path, films):
    films.save(tmp_path)
    code = f"""
import sys
for name in ("ibis", "duckdb", "torch"):
    sys.modules[name] = None
from hf_seqrec.data.catalog import Catalog
assert Catalog.from_pretrained({str(tmp_path)!r}).encode(["7"]) == [3]
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_another_catalog_knows():
    old = Catalog.from_items(["a", "b", "c"], title=["A", "B", "C"], year=[1, 2, 3])
    new = Catalog.from_items(["c", "d", "a"], count=[5, 4, 3])
    known = new.with_metadata_of(old)
    assert known.table.to_pydict() == {
        "row": [1, 2, 3],
        "item_id": ["c", "d", "a"],
        "count": [5, 4, 3],
        "title": ["C", None, "A"],
        "year": [3, None, 1],
    }
    # What the new one knows itself stays.
    new = Catalog.from_items(["c", "d", "a"], title=["Sea", "", ""])
    assert new.with_metadata_of(old).titles == ["Sea", "d", "A"]


@pytest.mark.parametrize("text", ["the godfather", "godfather", "Godfather, The", "THE GODFATHER", "godfather 1972"])
def test_find_takes_words_in_any_order_without_articles(text):
    titles = ["Godfather: Part II, The (1974)", "Godfather, The (1972)", "Father of the Bride (1950)"]
    catalog = Catalog.from_items(["a", "b", "c"], count=[9, 5, 1], title=titles)
    # The first is more popular, but its title says more.
    assert catalog.find(text).tolist() == ([2] if "1972" in text else [2, 1])


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ("amelie", 1),
        ("Amélie", 1),
        ("poulain amelie", 1),
        ("schindlers list", 2),
        ("list schindler's", 2),
        ("жизнь", 3),
        ("!!!", 4),
        ("the a", 5),
        ("(2001", 1),
    ],
)
def test_find_without_accents_case_and_signs(text, row):
    titles = ["Fabuleux destin d'Amélie Poulain, Le (2001)", "Schindler\u2019s List", "Жизнь", "!!!", "The A"]
    assert Catalog.from_items(list("vwxyz"), title=titles).find(text).tolist() == [row]


@pytest.mark.parametrize("wrong", [np.array([3.0]), pa.array([3.0]), np.array([True])])
def test_arrays_of_other_values_are_no_ids(films, wrong):
    with pytest.raises(TypeError, match=r"`item_ids` must be strings \(or integers\), got an array of"):
        films.rows_of(wrong)
