import tarfile

import pytest

from hf_seqrec.data.catalog import Catalog
from hf_seqrec.data.sequences import load_sequences

# As published.
HEADER = (
    "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,is_hate,long_view,"
    "play_time_ms,duration_ms,profile_stay_time,comment_stay_time,is_profile_enter,is_rand,tab\n"
)
VIDEOS = (
    "video_id,author_id,video_type,upload_dt,upload_type,visible_status,video_duration,server_width,server_height,"
    "music_id,music_type,tag\n"
    '10,441,NORMAL,2020-07-08,ShortImport,1,17200.0,720,1280,989206467,4,"12,65"\n'
    "20,442,AD,2020-07-09,ShortImport,1,,720,1280,989206468,4,39\n"
)


def view(user, video, time, click, like=0, random=0):
    return f"{user},{video},20220408,1600,{time},{click},{like},0,0,0,0,0,1385,209900,0,0,0,{random},1\n"


T = 1649400000000
EARLY = [view(3, 10, T + 2001, 1), view(3, 20, T + 2000, 1, like=1), view(3, 30, T + 1000, 0), view(4, 10, T, 0)]
LATE = [view(3, 40, T + 10**9, 1), view(4, 20, T + 10**9, 1, like=1)]
RANDOM = [view(4, 50, T + 2 * 10**9, 1, random=1), view(3, 50, T + 5 * 10**8, 0, random=1)]


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / "KuaiRand-Pure" / "data"
    folder.mkdir(parents=True)
    for name, views in (
        ("standard_4_08_to_4_21", EARLY),
        ("standard_4_22_to_5_08", LATE),
        ("random_4_22_to_5_08", RANDOM),
    ):
        (folder / f"log_{name}_pure.csv").write_text(HEADER + "".join(views))
    (folder / "video_features_basic_pure.csv").write_text(VIDEOS)
    (folder / "video_features_statistic_pure.csv").write_text("video_id,counts\n10,1\n")
    return folder.parent


def test_clicks_only_in_the_order_of_milliseconds(run, raw, tmp_path, histories):
    out = run("kuairand", "--raw", raw)
    # Not 30: its `is_click` is the string '0', which must not count.
    assert histories() == {"3": ["20", "10", "40"], "4": ["20"]}
    assert "2 users / 3 items / 4 interactions" in out
    sequences = load_sequences(tmp_path / "out", timestamps=True)
    assert sequences.timestamps[:3].tolist() == [1649400002, 1649400002, 1650400000]


def test_other_signals(run, raw, histories):
    run("kuairand", "--raw", raw, "--signal", "is_like")
    assert histories() == {"3": ["20"], "4": ["20"]}
    run("kuairand", "--raw", raw, "--signal", "all")
    assert histories() == {"3": ["30", "20", "10", "40"], "4": ["10", "20"]}
    run("kuairand", "--raw", raw, "--signal", "all", "--where", "is_click=0")
    assert histories() == {"3": ["30"], "4": ["10"]}


def test_with_randomly_exposed_videos(run, raw, histories):
    run("kuairand", "--raw", raw, "--random_log", "true")
    assert histories() == {"3": ["20", "10", "40"], "4": ["20", "50"]}


def test_what_is_known_of_the_videos(run, raw, tmp_path):
    run("kuairand", "--raw", raw)
    table = Catalog.from_pretrained(tmp_path / "out").table
    assert dict(zip(table["item_id"].to_pylist(), table["tag"].to_pylist(), strict=True)) == {
        "10": "12,65",
        "20": "39",
        "40": None,
    }
    assert "upload_type" in table.column_names


def test_the_archive_with_the_parts_of_27k(run, tmp_path, histories):
    parts = {
        "log_standard_4_08_to_4_21_27k_part1.csv": EARLY[:2],
        "log_standard_4_08_to_4_21_27k_part2.csv": EARLY[2:],
        "log_standard_4_22_to_5_08_27k_part1.csv": LATE[:1],
        "log_standard_4_22_to_5_08_27k_part2.csv": LATE[1:],
    }
    with tarfile.open(tmp_path / "KuaiRand-27K.tar.gz", "w:gz") as file:
        for name, views in parts.items():
            (tmp_path / name).write_text(HEADER + "".join(views))
            file.add(tmp_path / name, f"KuaiRand-27K/data/{name}")
            (tmp_path / name).unlink()
    run("kuairand", "--variant", "27k", "--raw", tmp_path / "KuaiRand-27K.tar.gz")
    assert histories() == {"3": ["20", "10", "40"], "4": ["20"]}


def test_a_missing_part_is_an_error(run, raw):
    (raw / "data" / "log_standard_4_22_to_5_08_pure.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"must hold log_standard_4_22_to_5_08_pure\.csv"):
        run("kuairand", "--raw", raw)


def test_the_most_recent_events(run, raw, histories):
    run("kuairand", "--raw", raw, "--last_n", 2)
    assert histories() == {"3": ["10", "40"], "4": ["20"]}


def test_the_card(run, raw, tmp_path):
    run("kuairand", "--raw", raw)
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "license: cc-by-sa-4.0" in card
    assert "# KuaiRand-Pure" in card
    assert "is_click=1" in card


@pytest.mark.parametrize(
    ("variant", "md5"), [("1k", "6b0b9c8222d67fcd4c676218edca3f1f"), ("27k", "3e3c799a24e2d23a4d2c757fbf9adf59")]
)
def test_downloads_are_checked(run, monkeypatch, variant, md5):
    class Fetched(Exception):
        pass

    def download(url, folder, **checks):
        raise Fetched(url, checks["md5"])

    monkeypatch.setattr("hf_seqrec.cli.dataset_building.download", download)
    with pytest.raises(Fetched) as raised:
        run("kuairand", "--variant", variant)
    assert raised.value.args == (f"https://zenodo.org/records/10439422/files/KuaiRand-{variant.upper()}.tar.gz", md5)
