import errno
import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from hf_seqrec.ingest import download as module
from hf_seqrec.ingest.download import download

CONTENT = bytes(range(256)) * 2000  # 512,000 bytes
MD5 = hashlib.md5(CONTENT).hexdigest()
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Site:
    """A server of one file, whose faults a test chooses."""

    def __init__(self):
        self.content, self.etag, self.ranges, self.sends_length = CONTENT, '"one"', True, True
        # Of the next answers: a status instead of the file, or how many bytes to send before breaking off.
        self.faults = []
        self.requests = []

    def answer(self, handler):
        self.requests.append(dict(handler.headers))
        if handler.path != "/files/data.bin":
            handler.send_error(404)
            return
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, int):
            handler.send_error(fault)
            return
        start, wanted = 0, handler.headers.get("Range")
        if wanted and self.ranges and handler.headers.get("If-Range") in (None, self.etag):
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        body = self.content[start:]
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        if self.sends_length:
            handler.send_header("Content-Length", str(len(body)))
        if self.etag:
            handler.send_header("ETag", self.etag)
        handler.end_headers()
        handler.wfile.write(body if fault is None else body[: fault["break_after"]])
        handler.wfile.flush()
        handler.close_connection = True


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setattr(module, "_PAUSES", (0.0, 0.0, 0.0))
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            site.answer(self)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}/files/data.bin"
    yield site
    server.shutdown()
    server.server_close()
    thread.join()


def fetch(site, folder, **options):
    return download(site.url, folder, progress=False, **options)


def left_over(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


class TestWhole:
    @pytest.mark.parametrize("checksum", [{}, {"md5": MD5}, {"sha256": SHA256.upper()}, {"size": len(CONTENT)}])
    def test_the_file_and_nothing_else_is_left(self, site, tmp_path, checksum):
        path = fetch(site, tmp_path / "new" / "folder", **checksum)
        assert path == tmp_path / "new" / "folder" / "data.bin"
        assert path.read_bytes() == CONTENT
        assert left_over(path.parent) == ["data.bin"]
        assert len(site.requests) == 1

    def test_a_finished_file_is_used_again(self, site, tmp_path):
        fetch(site, tmp_path)
        assert fetch(site, tmp_path, md5=MD5).read_bytes() == CONTENT
        assert len(site.requests) == 1

    def test_a_finished_file_that_is_wrong_is_not(self, site, tmp_path):
        (tmp_path / "data.bin").write_bytes(b"something else")
        with pytest.raises(ValueError, match=rf"md5 checksum {MD5}, it has .* Delete .*data\.bin to fetch it again"):
            fetch(site, tmp_path, md5=MD5)

    def test_a_file_of_unknown_length(self, site, tmp_path):
        site.sends_length = False
        assert fetch(site, tmp_path).read_bytes() == CONTENT

    def test_bytes_come_as_they_lie_there(self, site, tmp_path):
        fetch(site, tmp_path)
        assert site.requests[0]["Accept-Encoding"] == "identity"

    def test_progress_is_shown(self, site, tmp_path, capsys):
        download(site.url, tmp_path)
        assert "data.bin: 100%" in capsys.readouterr().err

    @pytest.mark.parametrize(
        "url", ["ftp://example.org/a", "http://example.org/", "data.bin", "http://example.org/.."]
    )
    def test_what_is_no_address_of_a_file(self, tmp_path, url):
        with pytest.raises(ValueError, match=r"`url` must be the http\(s\) address of a file"):
            download(url, tmp_path)


class TestResuming:
    def test_a_connection_that_breaks_off_goes_on(self, site, tmp_path):
        site.faults = [{"break_after": 100_000}, {"break_after": 200_000}]
        assert fetch(site, tmp_path, md5=MD5).read_bytes() == CONTENT
        assert [request.get("Range") for request in site.requests] == [None, "bytes=100000-", "bytes=300000-"]
        assert site.requests[1]["If-Range"] == '"one"'

    def test_the_next_run_goes_on_where_this_one_gave_up(self, site, tmp_path):
        site.faults = [{"break_after": 1000}, 503, 503, 503, 503]
        with pytest.raises(ConnectionError, match="1,000 bytes are kept: try again later"):
            fetch(site, tmp_path)
        assert left_over(tmp_path) == ["data.bin.part", "data.bin.part.json"]
        assert fetch(site, tmp_path).read_bytes() == CONTENT
        assert site.requests[-1]["Range"] == "bytes=1000-"

    def test_a_file_that_changed_starts_anew(self, site, tmp_path):
        site.faults = [{"break_after": 1000}, 503, 503, 503, 503]
        with pytest.raises(ConnectionError):
            fetch(site, tmp_path)
        site.content, site.etag = b"another version", '"two"'
        assert fetch(site, tmp_path).read_bytes() == b"another version"

    def test_a_server_without_ranges_starts_anew(self, site, tmp_path):
        site.ranges, site.faults = False, [{"break_after": 1000}]
        assert fetch(site, tmp_path).read_bytes() == CONTENT

    @pytest.mark.parametrize("etag", [None, 'W/"one"'])
    def test_a_version_without_a_name_starts_anew(self, site, tmp_path, etag):
        site.etag, site.faults = etag, [{"break_after": 1000}]
        assert fetch(site, tmp_path).read_bytes() == CONTENT
        assert "Range" not in site.requests[-1]

    def test_a_checksum_tells_as_well_whether_the_rest_fits(self, site, tmp_path):
        site.etag, site.faults = None, [{"break_after": 1000}]
        assert fetch(site, tmp_path, md5=MD5).read_bytes() == CONTENT
        assert site.requests[-1]["Range"] == "bytes=1000-"
        assert "If-Range" not in site.requests[-1]
        (tmp_path / "data.bin").unlink()
        site.faults = [{"break_after": 1000}, 503, 503, 503, 503]
        with pytest.raises(ConnectionError):
            fetch(site, tmp_path, md5=MD5)
        site.content = b"?" * len(CONTENT)
        with pytest.raises(ValueError, match="must have the md5 checksum"):
            fetch(site, tmp_path, md5=MD5)
        assert left_over(tmp_path) == []

    def test_a_whole_part_is_not_asked_for_again(self, site, tmp_path, monkeypatch):
        def kill(*arguments):
            raise KeyboardInterrupt

        with monkeypatch.context() as context:
            context.setattr(module.os, "replace", kill)
            with pytest.raises(KeyboardInterrupt):
                fetch(site, tmp_path)
        assert fetch(site, tmp_path).read_bytes() == CONTENT
        assert len(site.requests) == 1

    def test_a_part_that_is_too_long_starts_anew(self, site, tmp_path):
        site.faults = [{"break_after": 1000}, 503, 503, 503, 503]
        with pytest.raises(ConnectionError):
            fetch(site, tmp_path)
        (tmp_path / "data.bin.part").write_bytes(bytes(len(CONTENT) + 1))
        site.faults = [416]
        assert fetch(site, tmp_path).read_bytes() == CONTENT


class TestErrors:
    def test_a_busy_server_is_asked_again(self, site, tmp_path):
        site.faults = [500, 503, 429]
        assert fetch(site, tmp_path).read_bytes() == CONTENT
        assert len(site.requests) == 4

    def test_a_server_that_stays_busy(self, site, tmp_path):
        site.faults = [500] * 10
        with pytest.raises(ConnectionError, match="in 4 attempts: the server answered 500"):
            fetch(site, tmp_path)
        assert len(site.requests) == 4

    def test_no_such_file(self, site, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"there is no file at .*missing.zip .404 Not Found"):
            download(site.url.replace("data.bin", "missing.zip"), tmp_path, progress=False)
        assert len(site.requests) == 1

    @pytest.mark.parametrize(
        ("status", "error"), [(403, PermissionError), (401, PermissionError), (400, ConnectionError)]
    )
    def test_other_answers(self, site, tmp_path, status, error):
        site.faults = [status]
        with pytest.raises(error, match=str(status)):
            fetch(site, tmp_path)
        assert len(site.requests) == 1

    def test_no_server(self, site, tmp_path):
        with pytest.raises(ConnectionError, match=r"could not be fetched in 4 attempts: no connection .*refused"):
            download("http://127.0.0.1:9/data.bin", tmp_path, progress=False)

    @pytest.mark.parametrize("checksum", ["md5", "sha256"])
    def test_a_wrong_checksum(self, site, tmp_path, checksum):
        wrong = "0" * (32 if checksum == "md5" else 64)
        found = MD5 if checksum == "md5" else SHA256
        message = f"data.bin.part must have the {checksum} checksum {wrong}, it has {found}. It was not used."
        with pytest.raises(ValueError, match=message):
            fetch(site, tmp_path, **{checksum: wrong})
        assert left_over(tmp_path) == []

    def test_a_wrong_size_is_noticed_before_the_download(self, site, tmp_path):
        with pytest.raises(ValueError, match="must be a file of 7 bytes, the server has one of 512,000"):
            fetch(site, tmp_path, size=7)
        assert left_over(tmp_path) == []

    def test_a_disk_that_is_too_small(self, site, tmp_path, monkeypatch):
        monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
        with pytest.raises(OSError, match=r"data.bin needs 512,000 bytes, the disk has 1,000 free") as raised:
            fetch(site, tmp_path)
        assert raised.value.errno == errno.ENOSPC

    def test_a_disk_that_fills_up(self, tmp_path):
        with pytest.raises(OSError, match=r"the disk is full: log.csv needs 2,000 bytes") as raised:  # noqa: SIM117
            with module.naming_full_disk(tmp_path, 2000, "log.csv"):
                raise OSError(errno.ENOSPC, "No space left on device")
        assert raised.value.errno == errno.ENOSPC
