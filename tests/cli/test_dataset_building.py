import base64
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from huggingface_hub import HfApi

import hf_seqrec.hub.upload
from hf_seqrec.cli import dataset_building as building
from hf_seqrec.cli.dataset_building import PathArguments, command_without_folders, open_source, push_to_hub
from hf_seqrec.ingest.public_datasets.source import Published


class Hub:
    """What the Hub says to a client that uploads small files."""

    def __init__(self, existing=()):
        self.existing, self.repository, self.files, self.deleted = existing, None, {}, []

    def answer(self, method, path, body):
        if path == "/api/repos/create":
            self.repository = json.loads(body)
            return {"url": f"{self.address}/datasets/org/logs"}
        if "/tree/" in path:
            return [{"type": "file", "path": name, "size": 1, "oid": "0"} for name in self.existing]
        if path == "/api/validate-yaml":
            return {"errors": [], "warnings": []}
        if "/preupload/" in path:
            names = [file["path"] for file in json.loads(body)["files"]]
            return {"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]}
        assert "/commit/" in path, f"{method} {path}"
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "deletedFile":
                self.deleted.append(line["value"]["path"])
        return {"commitUrl": f"{self.address}/datasets/org/logs/commit/1", "commitOid": "1", "success": True}


@pytest.fixture
def start_hub(monkeypatch):
    """Start a Hub and point the scripts at it."""
    servers = []

    def start(**options):
        hub = Hub(**options)

        class Handler(BaseHTTPRequestHandler):
            def answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                content = json.dumps(hub.answer(self.command, self.path.split("?")[0], body)).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = answer

            def log_message(self, *arguments):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        servers.append((server, thread))
        hub.address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(hf_seqrec.hub.upload, "HfApi", lambda token: HfApi(hub.address, token="hf_test"))
        return hub

    yield start
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


class TestPushToHub:
    @pytest.fixture
    def folder(self, tmp_path):
        (tmp_path / "data" / "sequences").mkdir(parents=True)
        (tmp_path / "data" / "README.md").write_text("---\npretty_name: Logs\n---\n# Logs\n")
        (tmp_path / "data" / "catalog.parquet").write_bytes(b"catalog")
        (tmp_path / "data" / "sequences" / "part-00000.parquet").write_bytes(b"sequences")
        return tmp_path / "data"

    def test_every_file_goes_into_a_private_dataset_repository(self, folder, start_hub):
        hub = start_hub()
        assert push_to_hub(folder, "org/logs") == f"{hub.address}/datasets/org/logs"
        assert hub.repository["name"] == "logs"
        assert hub.repository["organization"] == "org"
        assert hub.repository["type"] == "dataset"
        assert hub.repository.get("private") or hub.repository.get("visibility") == "private"
        assert hub.files == {
            "README.md": (folder / "README.md").read_bytes(),
            "catalog.parquet": b"catalog",
            "sequences/part-00000.parquet": b"sequences",
        }

    def test_shards_of_an_earlier_version_go(self, folder, start_hub):
        hub = start_hub(existing=["sequences/part-00000.parquet", "sequences/part-00001.parquet", "notes.md"])
        push_to_hub(folder, "org/logs")
        assert hub.deleted == ["sequences/part-00001.parquet"]


class TestOpenSource:
    def test_what_is_published_is_fetched_into_the_cache(self, tmp_path, monkeypatch):
        (tmp_path / "log.csv").write_text("user,item,time\n")
        asked = []

        def download(url, folder, **checks):
            asked.append((url, Path(folder), checks))
            return tmp_path / "log.csv"

        monkeypatch.setattr(building, "download", download)
        monkeypatch.setattr(
            building, "cached_assets_path", lambda *names, **more: tmp_path / "cache" / more["subfolder"]
        )
        published = [Published("https://example.org/log.csv", md5="0" * 32, size=7)]
        with open_source(PathArguments(str(tmp_path / "new" / "out")), "logs", ["*.csv"], lambda: published) as (
            source,
            work,
        ):
            assert source.take("*.csv") == [tmp_path / "log.csv"]
            assert work.parent == tmp_path / "new"
        assert asked == [("https://example.org/log.csv", tmp_path / "cache" / "logs", {"md5": "0" * 32, "size": 7})]
        assert not work.exists()

    def test_nothing_is_fetched_where_something_is_named(self, tmp_path, monkeypatch):
        (tmp_path / "mine.csv").write_text("user,item,time\n")
        monkeypatch.setattr(building, "download", lambda *arguments, **checks: pytest.fail("downloads"))
        paths = PathArguments(str(tmp_path / "out"), raw=[str(tmp_path / "mine.csv")])
        with open_source(paths, "logs", ["*.csv"], lambda: [Published("https://example.org/log.csv")]) as (source, _):
            assert source.take("*.csv") == [tmp_path / "mine.csv"]

    def test_what_was_unpacked_goes_when_a_build_fails(self, tmp_path):
        (tmp_path / "mine.csv").write_text("user,item,time\n")
        paths = PathArguments(str(tmp_path / "out"), raw=[str(tmp_path / "mine.csv")])
        with pytest.raises(KeyboardInterrupt), open_source(paths, "logs", ["*.csv"], list):
            raise KeyboardInterrupt
        assert [path.name for path in tmp_path.iterdir()] == ["mine.csv"]


def test_the_command_names_no_folder_of_this_machine(tmp_path):
    words = ["build", "amazon", "--raw", str(tmp_path / "my log.csv"), "--output", "data/out", "--last_n", "5"]
    command = command_without_folders(words)
    assert command == "hf-seqrec build amazon --raw 'my log.csv' --output data/out --last_n 5"
