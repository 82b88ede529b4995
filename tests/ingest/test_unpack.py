import errno
import io
import sys
import tarfile
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import SimpleNamespace

import fsspec
import pytest

from hf_seqrec.ingest import download as download_module
from hf_seqrec.ingest import unpack as module
from hf_seqrec.ingest.unpack import RawSource, locate

MEMBERS = {
    "ml/ratings.dat": b"1::1193::5::978300760\n" * 20_000,
    "ml/movies.dat": b"1::Toy Story (1995)::Animation\n",
    "ml/README": b"read me",
    "ml/._ratings.dat": b"what a Mac leaves",
}
TARS = {".tar": "w", ".tar.gz": "w:gz", ".tgz": "w:gz", ".tar.bz2": "w:bz2", ".tar.xz": "w:xz"}


def write_archive(path, members):
    """Write an archive of the kind that the ending says."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, content in members.items():
                file.writestr(name, content)
        return path
    mode = next(mode for ending, mode in TARS.items() if path.name.endswith(ending))
    with tarfile.open(path, mode) as file:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture(params=[".zip", *TARS])
def archive(request, tmp_path):
    return write_archive(tmp_path / f"ml-1m{request.param}", MEMBERS)


def opened(raw, tmp_path, *wanted):
    return RawSource.open(raw, tmp_path / "work", wanted, progress=False)


def names(files):
    return [file.name for file in files]


class TestArchives:
    def test_only_wanted_members_are_unpacked(self, archive, tmp_path):
        source = opened(archive, tmp_path, "ratings.dat", "*.csv")
        [ratings] = source.take("ratings.dat")
        assert ratings.read_bytes() == MEMBERS["ml/ratings.dat"]
        unpacked = [path for path in (tmp_path / "work").rglob("*") if path.is_file()]
        assert unpacked == [ratings]
        assert sorted(source.names) == sorted(MEMBERS)

    def test_a_missing_member_lists_what_is_there(self, archive, tmp_path):
        source = opened(archive, tmp_path, "ratings.csv")
        with pytest.raises(
            FileNotFoundError, match=r"must hold ratings\.csv, but in .*ml-1m.* there is .*ml/movies\.dat"
        ):
            source.take("ratings.csv")

    @pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
    def test_one_that_was_cut_short(self, archive, tmp_path, kept):
        content = archive.read_bytes()
        archive.write_bytes(content[: int(len(content) * kept)])
        with pytest.raises(ValueError, match=rf"{archive.name} is not a whole .* file .*Fetch it again"):
            opened(archive, tmp_path, "ratings.dat", "movies.dat")

    @pytest.mark.parametrize("ending", [".zip", ".tar.gz", ".tar.bz2", ".tar.xz"])
    def test_one_whose_last_byte_is_missing(self, tmp_path, ending):
        archive = write_archive(tmp_path / f"ml{ending}", MEMBERS)
        archive.write_bytes(archive.read_bytes()[:-1])
        with pytest.raises(ValueError, match="is not a whole"):
            opened(archive, tmp_path, "ratings.dat")

    def test_one_that_was_cut_between_two_members(self, tmp_path):
        archive = write_archive(tmp_path / "ml.tar", MEMBERS)
        with tarfile.open(archive) as file:
            second = file.getmembers()[1].offset
        archive.write_bytes(archive.read_bytes()[:second])
        with pytest.raises(ValueError, match="it has no end"):
            opened(archive, tmp_path, "ratings.dat")

    def test_one_that_was_damaged(self, tmp_path):
        archive = write_archive(tmp_path / "ml.zip", MEMBERS)
        content = bytearray(archive.read_bytes())
        content[200] ^= 0xFF
        archive.write_bytes(content)
        with pytest.raises(ValueError, match=r"ml\.zip is not a whole \.zip file"):
            opened(archive, tmp_path, "ratings.dat")

    @pytest.mark.parametrize("ending", [".zip", ".tar.gz"])
    @pytest.mark.parametrize("name", ["../ratings.dat", "ml/../../ratings.dat", "/ratings.dat", "..\\ratings.dat"])
    def test_members_stay_inside(self, tmp_path, ending, name):
        archive = write_archive(tmp_path / f"evil{ending}", {name: b"x"})
        with pytest.raises(ValueError, match="must unpack into its own folder"):
            opened(archive, tmp_path, "ratings.dat", "*ratings.dat")
        assert not list(tmp_path.rglob("*ratings.dat"))

    def test_links_are_not_followed(self, tmp_path):
        with tarfile.open(tmp_path / "links.tar", "w") as file:
            member = tarfile.TarInfo("ratings.dat")
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            file.addfile(member)
        assert opened(tmp_path / "links.tar", tmp_path, "ratings.dat").files == []

    def test_members_of_the_same_name(self, tmp_path):
        archive = write_archive(tmp_path / "logs.zip", {"b/log.csv": b"b", "a/log.csv": b"a"})
        assert [file.read_bytes() for file in opened(archive, tmp_path, "*.csv").files] == [b"a", b"b"]

    def test_archives_of_the_same_name(self, tmp_path):
        for folder in ("one", "two"):
            (tmp_path / folder).mkdir()
            write_archive(tmp_path / folder / "logs.zip", {"log.csv": folder.encode()})
        source = opened([tmp_path / "two" / "logs.zip", tmp_path / "one" / "logs.zip"], tmp_path, "*.csv")
        assert [file.read_bytes() for file in source.take("*.csv")] == [b"two", b"one"]

    @pytest.mark.parametrize("ending", [".zip", ".tar.gz"])
    def test_a_disk_that_is_too_small(self, tmp_path, ending, monkeypatch):
        archive = write_archive(tmp_path / f"ml{ending}", MEMBERS)
        monkeypatch.setattr(download_module.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
        with pytest.raises(OSError, match=r"unpacking .*ml.* needs 440,000 bytes, the disk has 1,000 free") as raised:
            opened(archive, tmp_path, "ratings.dat")
        assert raised.value.errno == errno.ENOSPC

    def test_progress_is_shown(self, archive, tmp_path, capsys):
        RawSource.open(archive, tmp_path / "work", ["ratings.dat"])
        assert f"Unpacking {archive.name}" in capsys.readouterr().err


class TestFiles:
    @pytest.fixture
    def folder(self, tmp_path):
        folder = tmp_path / "logs"
        for name in ("b.csv", "a.csv.gz", "deep/c.csv", "note.txt", ".hidden/d.csv", ".e.csv"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(name)
        return folder

    def test_a_folder_is_searched_with_all_below(self, folder, tmp_path):
        assert names(locate(folder, tmp_path / "work", ["*.csv"])) == ["a.csv.gz", "b.csv", "c.csv"]

    def test_a_pattern_is_sorted(self, folder, tmp_path):
        assert names(locate(str(folder / "*.csv*"), tmp_path / "work", ["*.csv"])) == ["a.csv.gz", "b.csv"]
        assert names(locate(str(folder / "**" / "*.csv"), tmp_path / "work", ["*.csv"])) == ["b.csv", "c.csv"]

    def test_a_list_keeps_its_order(self, folder, tmp_path):
        files = [folder / "deep" / "c.csv", str(folder / "b.csv")]
        assert names(locate(files, tmp_path / "work", ["*.csv"])) == ["c.csv", "b.csv"]

    def test_a_name_with_brackets_is_a_name(self, tmp_path):
        (tmp_path / "log[1].csv").write_text("a")
        assert names(locate(tmp_path / "log[1].csv", tmp_path / "work", ["*.csv"])) == ["log[1].csv"]

    @pytest.mark.parametrize("packed", ["gz", "bz2", "xz", "zst"])
    def test_compressed_text_is_meant_too(self, tmp_path, packed):
        (tmp_path / f"log.csv.{packed}").write_text("a")
        assert names(locate(tmp_path, tmp_path / "work", ["*.csv"])) == [f"log.csv.{packed}"]

    def test_the_first_pattern_with_files_counts(self, folder, tmp_path):
        source = opened(folder, tmp_path, "*.inter", "*.txt", "*.csv")
        assert names(source.take("*.inter", "*.txt", "*.csv")) == ["note.txt"]
        assert source.find("*.inter") == []

    def test_neighbours_of_a_file_are_found_but_not_taken(self, folder, tmp_path):
        source = opened(folder / "b.csv", tmp_path, "*.csv", "*.txt")
        assert names(source.find("*.txt")) == ["note.txt"]
        assert names(source.take("*.csv")) == ["b.csv"]
        with pytest.raises(FileNotFoundError, match=r"must hold \*\.txt, but in .* there is b\.csv"):
            source.take("*.txt")

    @pytest.mark.parametrize("place", ["nowhere", "nowhere/*.csv"])
    def test_nothing_there(self, tmp_path, place):
        with pytest.raises(FileNotFoundError, match=r"`raw` must be a file, .* nothing at .*nowhere"):
            opened(str(tmp_path / place), tmp_path, "*.csv")

    def test_an_empty_list(self, tmp_path):
        with pytest.raises(ValueError, match="`raw` must name at least one place"):
            opened([], tmp_path, "*.csv")


class TestAddresses:
    def test_an_archive_on_a_web_site(self, tmp_path):
        write_archive(tmp_path / "site.zip", MEMBERS)

        class Handler(SimpleHTTPRequestHandler):
            def log_message(self, *arguments):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path)))
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            address = f"http://127.0.0.1:{server.server_port}/site.zip"
            source = RawSource.open(address, tmp_path / "work", ["movies.dat"], tmp_path / "downloads", progress=False)
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
        assert source.take("movies.dat")[0].read_bytes() == MEMBERS["ml/movies.dat"]
        assert (tmp_path / "downloads" / "site.zip").is_file()

    @pytest.fixture
    def bucket(self):
        system = fsspec.filesystem("memory")
        for name in ("b.csv", "a.csv", "c.txt", "deep/d.csv"):
            system.pipe(f"/bucket/{name}", name.encode())
        yield system
        system.rm("/bucket", recursive=True)

    @pytest.mark.parametrize(
        ("path", "expected"),
        [
            ("bucket/a.csv", ["a.csv"]),
            ("bucket/*.csv", ["a.csv", "b.csv"]),
            ("bucket", ["a.csv", "b.csv", "d.csv"]),
        ],
    )
    def test_what_fsspec_knows(self, bucket, tmp_path, path, expected):
        files = locate(f"memory://{path}", tmp_path / "work", ["*.csv"], progress=False)
        assert names(files) == expected
        assert files[0].read_bytes() == expected[0].encode()

    @pytest.mark.parametrize("path", ["bucket/z.csv", "bucket/*.inter"])
    def test_nothing_there(self, bucket, tmp_path, path):
        with pytest.raises(FileNotFoundError, match="there is nothing at memory://bucket"):
            locate(f"memory://{path}", tmp_path / "work", ["*.csv"])

    def test_a_file_that_comes_in_part(self, bucket, tmp_path, monkeypatch):
        monkeypatch.setattr(type(bucket), "size", lambda self, name: 100)
        with pytest.raises(ConnectionError, match=r"of /bucket/a\.csv only 5 of 100 bytes came"):
            locate("memory://bucket/a.csv", tmp_path / "work", ["*.csv"], progress=False)
        assert not (tmp_path / "work" / "a.csv").exists()

    def test_a_missing_package_is_named_by_its_extra(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "s3fs", None)
        with pytest.raises(ImportError, match=r's3://bucket/log\.csv needs .* pip install "hf-seqrec\[s3\]"'):
            locate("s3://bucket/log.csv", tmp_path / "work", ["*.csv"])

    def test_an_unknown_protocol(self, tmp_path):
        with pytest.raises(ValueError, match="`raw` must be an address that fsspec knows, got carrier-pigeon://log"):
            locate("carrier-pigeon://log.csv", tmp_path / "work", ["*.csv"])

    @pytest.mark.parametrize("checksum", [None, "right", "wrong"])
    def test_a_file_of_the_hub_is_held_against_its_checksum(self, tmp_path, monkeypatch, checksum):
        path = tmp_path / "a.csv"
        path.write_bytes(b"a")
        sha256 = module.file_digest(path, "sha256") if checksum == "right" else checksum
        asked = []

        class Hub:
            def info(self, name):
                return {"lfs": None if sha256 is None else {"sha256": sha256}}

            def resolve_path(self, name):
                return SimpleNamespace(repo_id="org/logs", repo_type="dataset", revision="main", path_in_repo="a.csv")

        def hf_hub_download(repo_id, filename, **options):
            asked.append((repo_id, filename, options))
            return str(path)

        monkeypatch.setattr("huggingface_hub.hf_hub_download", hf_hub_download)
        if checksum == "wrong":
            with pytest.raises(ValueError, match="must have the sha256 checksum wrong"):
                module._fetch_from_hub(Hub(), "datasets/org/logs/a.csv")
        else:
            assert module._fetch_from_hub(Hub(), "datasets/org/logs/a.csv") == path
        assert asked == [("org/logs", "a.csv", {"repo_type": "dataset", "revision": "main"})]
