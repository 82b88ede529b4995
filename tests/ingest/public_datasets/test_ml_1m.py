import zipfile

import pytest

from hf_seqrec.data.catalog import Catalog
from hf_seqrec.data.sequences import load_sequences
from hf_seqrec.ingest.public_datasets import ml_1m

# As published: no header, two colons, Latin-1 titles.
RATINGS = "1::1193::5::978300760\n1::661::3::978302109\n2::1193::4::978298413\n2::1721::3::978298412\n"
MOVIES = (
    "661::James and the Giant Peach (1996)::Animation|Children's|Musical\n"
    "1193::One Flew Over the Cuckoo's Nest (1975)::Drama\n"
    '1721::Misérables, "Les": The Film (1995)::Drama|Musical\n'
)
RATINGS_CSV = "userId,movieId,rating,timestamp\n1,2,3.5,1112486027\n1,29,4.0,1112484676\n2,2,0.5,974820598\n"
MOVIES_CSV = (
    'movieId,title,genres\n2,Jumanji (1995),Adventure|Children\n29,"City of Lost Children, The (Cité) (1995)",Drama\n'
)


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "ml-1m.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("ml-1m/ratings.dat", RATINGS)
        file.writestr("ml-1m/movies.dat", MOVIES.encode("latin-1"))
        file.writestr("ml-1m/users.dat", "1::F::1::10::48067\n")
    return path


def titles(folder):
    catalog = Catalog.from_pretrained(folder)
    return dict(zip(catalog.table["item_id"].to_pylist(), catalog.titles, strict=True))


def test_the_archive_as_published(run, archive, tmp_path, histories):
    out = run("ml-1m", "--raw", archive)
    assert "2 users / 3 items / 4 interactions" in out
    assert histories() == {"1": ["1193", "661"], "2": ["1721", "1193"]}
    assert titles(tmp_path / "out") == {
        "661": "James and the Giant Peach (1996)",
        "1193": "One Flew Over the Cuckoo's Nest (1975)",
        "1721": 'Misérables, "Les": The Film (1995)',
    }
    assert Catalog.from_pretrained(tmp_path / "out").table["genres"].to_pylist()[0] == "Drama"


def test_an_unpacked_folder_and_a_file_in_it(run, archive, tmp_path, histories):
    with zipfile.ZipFile(archive) as file:
        file.extractall(tmp_path / "unpacked")
    for raw in (tmp_path / "unpacked", tmp_path / "unpacked" / "ml-1m" / "ratings.dat"):
        run("ml-1m", "--raw", raw, "--rating_threshold", 4)
        assert histories() == {"1": ["1193"], "2": ["1193"]}
        assert titles(tmp_path / "out") == {"1193": "One Flew Over the Cuckoo's Nest (1975)"}


@pytest.mark.parametrize("variant", ["20m", "32m"])
def test_the_larger_ones(run, tmp_path, histories, variant):
    with zipfile.ZipFile(tmp_path / "ml.zip", "w") as file:
        file.writestr(f"ml-{variant}/ratings.csv", RATINGS_CSV)
        file.writestr(f"ml-{variant}/movies.csv", MOVIES_CSV)
        file.writestr(f"ml-{variant}/tags.csv", "userId,movieId,tag,timestamp\n")
    run("ml-1m", "--variant", variant, "--raw", tmp_path / "ml.zip")
    assert histories() == {"1": ["29", "2"], "2": ["2"]}
    assert titles(tmp_path / "out")["29"] == "City of Lost Children, The (Cité) (1995)"


def test_without_films(run, tmp_path, histories):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "ratings.dat").write_text(RATINGS)
    run("ml-1m", "--raw", tmp_path / "raw")
    assert histories() == {"1": ["1193", "661"], "2": ["1721", "1193"]}
    assert Catalog.from_pretrained(tmp_path / "out").titles is None


def test_another_variant_than_the_archive_holds(run, archive):
    with pytest.raises(
        FileNotFoundError, match=r"must hold ratings\.csv, but in .*ml-1m\.zip there is .*ratings\.dat"
    ):
        run("ml-1m", "--variant", "20m", "--raw", archive)


def test_columns_are_not_for_the_command_line(run, archive):
    with pytest.raises(ValueError, match=r"`user_column` must be left out: this dataset's format is known"):
        run("ml-1m", "--raw", archive, "--user_column", "user_id")


def test_the_card(run, archive, tmp_path):
    run("ml-1m", "--raw", archive, "--min_item_events", 1)
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "# MovieLens 1M" in card
    assert "https://grouplens.org/datasets/movielens/1m/" in card
    assert "harper2015movielens" in card
    assert "hf-seqrec build ml-1m --output out --raw ml-1m.zip --min_item_events 1" in card
    assert str(tmp_path) not in card


def test_nothing_is_left_beside_the_folder(run, archive, tmp_path):
    run("ml-1m", "--raw", archive)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ml-1m.zip", "out"]
    assert load_sequences(tmp_path / "out").n_users == 2


def test_downloads_are_checked_and_found_again(run, archive, tmp_path, monkeypatch):
    fetched = []

    def download(url, folder, md5, size):
        fetched.append((url, str(folder), md5, size))
        return archive

    monkeypatch.setattr("hf_seqrec.cli.dataset_building.download", download)
    run("ml-1m", "--download_folder", tmp_path / "downloads")
    url = "https://files.grouplens.org/datasets/movielens/ml-1m.zip"
    assert fetched == [(url, str(tmp_path / "downloads"), "c4d9eecfca2ab87c1945afe126590906", 5917549)]


def test_a_folder_of_something_else_is_refused_before_the_download(run, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").touch()
    monkeypatch.setattr(
        "hf_seqrec.cli.dataset_building.download", lambda *arguments, **options: pytest.fail("downloads")
    )
    with pytest.raises(FileExistsError, match=r"thesis\.tex"):
        run("ml-1m")


@pytest.mark.parametrize("published", ml_1m.PUBLISHED.values(), ids=ml_1m.PUBLISHED)
def test_every_variant_has_a_checksum(published):
    assert len(published.md5) == 32
    assert published.size > 5_000_000
