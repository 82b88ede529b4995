import zipfile

import pytest

from hf_seqrec.data.catalog import Catalog

# As published: user, artist, album, track, time; tabs, no header, quotes like any other character.
EVENTS = (
    "31435741\t2\t4\t4\t1385212958\n31435741\t2\t4\t5\t1385212642\n31435741\t7\t9\t11\t1385212325\n"
    "2332\t7\t9\t11\t1385212325\n2332\t2\t4\t4\t1385212324\n"
)
NAMES = {
    "artist": '2\tBlood Ritual\n7\t"Weird Al" Yankovic\n',
    "album": "4\tBlack Grimoire\t2\n9\tEven Worse\t7\n",
    "track": '4\tAt the Mountains of Madness\t2\n5\tBlood "Ritual\t2\n11\tFat\t7\n',
}


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / "LFM-1b"
    folder.mkdir()
    (folder / "LFM-1b_LEs.txt").write_text(EVENTS)
    for item, names in NAMES.items():
        (folder / f"LFM-1b_{item}s.txt").write_text(names)
    (folder / "LFM-1b_users.txt").write_text("user_id\tcountry\n2332\tUK\n")
    return folder


@pytest.mark.parametrize(
    ("item", "expected", "titles"),
    [
        (
            "artist",
            {"31435741": ["7", "2", "2"], "2332": ["2", "7"]},
            {"2": "Blood Ritual", "7": '"Weird Al" Yankovic'},
        ),
        ("album", {"31435741": ["9", "4", "4"], "2332": ["4", "9"]}, {"4": "Black Grimoire", "9": "Even Worse"}),
        (
            "track",
            {"31435741": ["11", "5", "4"], "2332": ["4", "11"]},
            {"4": "At the Mountains of Madness", "5": 'Blood "Ritual', "11": "Fat"},
        ),
    ],
)
def test_the_authors_files(run, raw, tmp_path, histories, item, expected, titles):
    run("lfm-1b", "--raw", raw, "--item", item)
    assert histories() == expected
    catalog = Catalog.from_pretrained(tmp_path / "out")
    assert dict(zip(catalog.table["item_id"].to_pylist(), catalog.titles, strict=True)) == titles
    assert ("artist_id" in catalog.table.column_names) == (item != "artist")


def test_the_archive(run, raw, tmp_path, histories):
    with zipfile.ZipFile(tmp_path / "LFM-1b.zip", "w") as file:
        for path in raw.iterdir():
            file.write(path, f"LFM-1b/{path.name}")
    run("lfm-1b", "--raw", tmp_path / "LFM-1b.zip", "--item", "artist", "--repeats", "consecutive")
    assert histories() == {"31435741": ["7", "2"], "2332": ["2", "7"]}


def test_atomic_files(run, tmp_path, histories):
    folder = tmp_path / "recbole"
    folder.mkdir()
    lines = [line.split("\t") for line in EVENTS.splitlines()]
    log = "".join(f"{user}\t{album}\t{time}\n" for user, _, album, _, time in lines)
    (folder / "lfm1b-albums.inter").write_text("user_id:token\talbums_id:token\ttimestamp:float\n" + log)
    (folder / "lfm1b-albums.item").write_text("albums_id:token\tname:token_seq\tartists_id:token\n" + NAMES["album"])
    run("lfm-1b", "--raw", folder, "--item", "album")
    assert histories() == {"31435741": ["9", "4", "4"], "2332": ["4", "9"]}
    assert Catalog.from_pretrained(tmp_path / "out").titles == ["Black Grimoire", "Even Worse"]
    # What is known of the items is found beside the file that is named alone.
    run("lfm-1b", "--raw", folder / "lfm1b-albums.inter", "--item", "album")
    assert Catalog.from_pretrained(tmp_path / "out").titles == ["Black Grimoire", "Even Worse"]


def test_files_of_another_item(run, tmp_path):
    (tmp_path / "lfm1b-artists.inter").write_text("user_id:token\tartists_id:token\ttimestamp:float\n1\t2\t3\n")
    with pytest.raises(FileNotFoundError, match=r"lfm1b-tracks\.inter, but in .* there is lfm1b-artists\.inter"):
        run("lfm-1b", "--raw", tmp_path / "lfm1b-artists.inter")


def test_there_is_nothing_to_download(run):
    with pytest.raises(ValueError, match=r"`--raw` must name the dataset.*do not offer it"):
        run("lfm-1b")


def test_a_line_that_is_cut_short(run, raw):
    with (raw / "LFM-1b_LEs.txt").open("a") as file:
        file.write("2332\t2\t4\n")
    with pytest.raises(ValueError, match=r"LFM-1b_LEs\.txt.*6"):
        run("lfm-1b", "--raw", raw)
    out = run("lfm-1b", "--raw", raw, "--on_bad_rows", "skip")
    assert "1 malformed rows were left out" in out
