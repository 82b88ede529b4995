"""
A small Hub on this machine, for the real huggingface_hub client: repositories, commits, branches, tokens, LFS, faults.

Its client must be told where it is before it is imported: see `HubServer.environment`. What it answers is what
huggingface.co answers, as far as pushing and loading models, datasets and Spaces asks; it keeps everything in memory.
"""

import base64
import hashlib
import json
import os
import re
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_a_token_that_may_write"
READ_TOKEN = "hf_a_token_that_may_read"

_LFS_SUFFIXES = (".safetensors", ".parquet", ".png", ".pt", ".pth")


@dataclass
class Repository:
    """Commits by their hash, each the whole tree `{path: content's hash}`, and which commits the branches end with."""

    private: bool = False
    commits: dict[str, dict[str, str]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    branches: dict[str, str] = field(default_factory=dict)

    def add(self, branch: str, tree: dict[str, str], message: str) -> str:
        commit = hashlib.sha1(f"{len(self.commits)}{sorted(tree.items())}".encode()).hexdigest()
        self.commits[commit] = tree
        self.messages.append(message)
        self.branches[branch] = commit
        return commit

    def commit_of(self, revision: str) -> str | None:
        revision = self.branches.get(revision, revision)
        return revision if revision in self.commits else None


class Answer(Exception):
    """Ends a request: a status, a body (bytes or what becomes JSON), headers."""

    def __init__(self, status: int, body: object = b"", **headers: str):
        self.status, self.body, self.headers = status, body, headers


HANG_UP = Answer(0)


class HubServer:
    """
    Use as a context manager. `fail` makes requests fail; `requests` has all that came, as `POST /api/repos/create`.

    `TOKEN` may read and write everything of the namespaces `org` and `me`, `READ_TOKEN` only read.
    """

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.contents: dict[str, bytes] = {}
        self.requests: list[str] = []
        self._faults: list[tuple[str, Callable[[], Answer | None], list[int]]] = []
        self._lock = Lock()

    def __enter__(self) -> "HubServer":
        hub = self

        class Handler(_Handler):
            def handle_request(self) -> None:
                hub._handle(self)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def environment(self, cache: object, token: str | None = None) -> dict[str, str]:
        """Environment of a client: this address, a cache of its own, without or with a token."""
        unwanted = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE")
        environment = {name: value for name, value in os.environ.items() if name not in unwanted}
        settings = {"HF_ENDPOINT": self.address, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1"}
        return environment | settings | ({} if token is None else {"HF_TOKEN": token})

    def fail(self, request: str, answer: Callable[[], Answer | None], times: int = 1) -> None:
        """
        Ask `answer` what to say to the next requests that a pattern matches (`"PUT /lfs/"`).

        It may do something and return `None`, for the usual answer; or `HANG_UP`, for none at all.
        """
        self._faults.append((request, answer, [times]))

    def files(self, repo_id: str, revision: str = "main", kind: str = "models") -> dict[str, bytes]:
        """Return the files of a revision."""
        repository = self.repositories[kind, repo_id]
        commit = repository.commit_of(revision)
        return {} if commit is None else {name: self.contents[key] for name, key in repository.commits[commit].items()}

    def count(self, request: str) -> int:
        """Count the requests that came and match a pattern."""
        return sum(re.match(request, came) is not None for came in self.requests)

    def _handle(self, handler: "_Handler") -> None:
        url = urlsplit(handler.path)
        path, query = unquote(url.path), parse_qs(url.query)
        request = f"{handler.command} {path}"
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        with self._lock:
            self.requests.append(request)
            fault = next((each for each in self._faults if each[2][0] > 0 and re.match(each[0], request)), None)
            if fault is not None:
                fault[2][0] -= 1
        try:
            if fault is not None and (answer := fault[1]()) is not None:
                raise answer
            token = (handler.headers.get("Authorization") or "").removeprefix("Bearer ") or None
            if token not in (None, TOKEN, READ_TOKEN):
                raise _error(401, "Invalid credentials in Authorization header")
            with self._lock:
                self._route(handler.command, path, query, body, token)
            raise _error(404, f"this Hub does not know {request}", "EntryNotFound")
        except Answer as answer:
            handler.answer(answer)

    def _route(self, method: str, path: str, query: dict[str, list[str]], body: bytes, token: str | None) -> None:
        if path.startswith("/lfs/") and method == "PUT":
            # As a bucket does: the address alone is the permission.
            if hashlib.sha256(body).hexdigest() != path.removeprefix("/lfs/"):
                raise _error(400, "the content is not what its hash says")
            self.contents[path.removeprefix("/lfs/")] = body
            raise Answer(200)
        if path == "/api/whoami-v2":
            if token is None:
                raise _error(401, "Invalid username or password.")
            raise Answer(200, {"type": "user", "name": "me", "orgs": [{"name": "org"}], "auth": {"type": "token"}})
        if path == "/api/validate-yaml":
            raise Answer(200, {"errors": [], "warnings": []})
        if path == "/api/repos/create":
            self._create(json.loads(body), token)
        if found := re.fullmatch(r"/api/(models|datasets|spaces)/([^/]+/[^/]+)(?:/(.*))?", path):
            kind, name, rest = found.groups()
            self._api(method, kind, name, rest or "", query, body, token)
        if found := re.fullmatch(r"/(?:(datasets|spaces)/)?([^/]+/[^/]+)\.git/info/lfs/objects/(batch|verify)", path):
            self._writable(found[1] or "models", found[2], token)
            self._lfs(found[3], json.loads(body))
        if found := re.fullmatch(r"/(?:(datasets|spaces)/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(found[1] or "models", found[2], found[3], found[4], token)

    def _create(self, asked: dict, token: str | None) -> None:
        namespace = asked.get("organization") or "me"
        self._check_may_write(namespace, token)
        kind, name = f"{asked.get('type', 'model')}s", f"{namespace}/{asked['name']}"
        answer = {"url": self._page(kind, name), "name": name, "id": secrets.token_hex(12)}
        if (kind, name) in self.repositories:
            raise Answer(409, answer | {"error": "You already created this model repo"})
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.repositories[kind, name] = repository = Repository(private)
        repository.add("main", {}, "initial commit")
        raise Answer(200, answer)

    def _api(self, method: str, kind: str, name: str, rest: str, query: dict, body: bytes, token: str | None) -> None:
        what, _, rest = rest.partition("/")
        if method == "POST" and what in ("preupload", "commit", "branch"):
            repository = self._writable(kind, name, token)
            if what == "branch":
                if rest in repository.branches:
                    raise _error(409, f"Reference already exists: {rest}")
                repository.branches[rest] = repository.branches["main"]
                raise Answer(200, {})
            tree = repository.commits[self._commit(repository, rest)]
            if what == "preupload":
                raise Answer(200, {"files": [_upload_mode(file, tree) for file in json.loads(body)["files"]]})
            self._add_commit(kind, name, repository, rest, [json.loads(line) for line in body.splitlines()])
        repository = self._readable(kind, name, token)
        if what in ("", "revision"):
            commit = self._commit(repository, rest or "main")
            siblings = [{"rfilename": path} for path in repository.commits[commit]]
            raise Answer(
                200,
                {
                    **{"id": name, "sha": commit, "private": repository.private, "siblings": siblings, "tags": []},
                    **{"disabled": False, "gated": False, "downloads": 0, "likes": 0, "author": name.split("/")[0]},
                },
            )
        if what == "tree":
            revision, _, folder = rest.partition("/")
            tree = repository.commits[self._commit(repository, revision)]
            raise Answer(200, self._entries(tree, folder, query.get("recursive", ["false"])[0].lower() == "true"))
        if what == "paths-info":
            asked = json.loads(body)["paths"] if body.startswith(b"{") else parse_qs(body.decode())["paths"]
            tree = repository.commits[self._commit(repository, rest)]
            entries = {entry["path"]: entry for entry in self._entries(tree, "", recursive=True, or_fail=False)}
            raise Answer(200, [entries[path] for path in asked if path in entries])

    def _entries(self, tree: dict[str, str], folder: str, recursive: bool, or_fail: bool = True) -> list[dict]:
        inside = [path for path in sorted(tree) if not folder or path.startswith(f"{folder}/")]
        if folder and or_fail and not inside:
            raise _error(404, f"{folder} does not exist", "EntryNotFound")
        entries: dict[str, dict] = {}
        for path in inside:
            parts = path.split("/")
            depth = len(folder.split("/")) if folder else 0
            for end in range(depth + 1, len(parts)):
                name = "/".join(parts[:end])
                if recursive or end == depth + 1:
                    entries[name] = {"type": "directory", "path": name, "oid": "0" * 40, "size": 0}
            if recursive or len(parts) == depth + 1:
                key = tree[path]
                entries[path] = {"type": "file", "path": path, "oid": key[:40], "size": len(self.contents[key])}
                if path.endswith(_LFS_SUFFIXES):
                    entries[path]["lfs"] = {"oid": key, "size": len(self.contents[key]), "pointerSize": 100}
        return list(entries.values())

    def _add_commit(self, kind: str, name: str, repository: Repository, branch: str, lines: list[dict]) -> None:
        tree = dict(repository.commits[repository.branches[branch]])
        message = ""
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                message = value["summary"]
            elif line["key"] == "file":
                content = base64.b64decode(value["content"])
                key = hashlib.sha256(content).hexdigest()
                self.contents[key] = content
                tree[value["path"]] = key
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.contents:
                    raise _error(400, f"{value['path']} was not uploaded")
                tree[value["path"]] = value["oid"]
            elif line["key"] == "deletedFile":
                del tree[value["path"]]
            else:
                raise _error(400, f"this Hub does not know {line['key']}")
        commit = repository.add(branch, tree, message)
        address = f"{self._page(kind, name)}/commit/{commit}"
        raise Answer(200, {"success": True, "commitOid": commit, "commitUrl": address, "hookOutput": ""})

    def _lfs(self, what: str, asked: dict) -> None:
        if what == "verify":
            raise Answer(200 if asked["oid"] in self.contents else 404, {})
        objects = []
        for each in asked["objects"]:
            known = {"oid": each["oid"], "size": each["size"]}
            upload = {"upload": {"href": f"{self.address}/lfs/{each['oid']}"}}
            objects.append(known if each["oid"] in self.contents else known | {"actions": upload})
        raise Answer(200, {"transfer": "basic", "objects": objects})

    def _resolve(self, kind: str, name: str, revision: str, path: str, token: str | None) -> None:
        repository = self._readable(kind, name, token)
        commit = self._commit(repository, revision)
        key = repository.commits[commit].get(path)
        if key is None:
            raise _error(404, "Entry not found", "EntryNotFound")
        headers = {"X-Repo-Commit": commit, "ETag": f'"{key}"', "Accept-Ranges": "bytes"}
        raise Answer(200, self.contents[key], **headers)

    def _readable(self, kind: str, name: str, token: str | None) -> Repository:
        repository = self.repositories.get((kind, name))
        if repository is None or (repository.private and token is None):
            # The Hub does not say which of the two it is, and asks those for a token who have none.
            if token is None:
                raise _error(401, "Invalid username or password.", "RepoNotFound")
            raise _error(404, "Repository not found", "RepoNotFound")
        return repository

    def _writable(self, kind: str, name: str, token: str | None) -> Repository:
        self._check_may_write(name.split("/")[0], token)
        return self._readable(kind, name, token)

    def _check_may_write(self, namespace: str, token: str | None) -> None:
        if token is None:
            raise _error(401, "Invalid username or password.")
        if token != TOKEN or namespace not in ("org", "me"):
            raise _error(403, f"You don't have the rights to create a model under the namespace {namespace!r}")

    def _commit(self, repository: Repository, revision: str) -> str:
        commit = repository.commit_of(revision)
        if commit is None:
            raise _error(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    def _page(self, kind: str, name: str) -> str:
        return f"{self.address}/{name}" if kind == "models" else f"{self.address}/{kind}/{name}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle_request(self) -> None:
        raise NotImplementedError

    def do(self) -> None:
        self.handle_request()

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do

    def answer(self, answer: Answer) -> None:
        if answer is HANG_UP:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        content = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        status, headers = answer.status, dict(answer.headers)
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if asked and status == 200 and "ETag" in headers:
            first, last = int(asked[1]), min(int(asked[2] or len(content)), len(content) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            status, content = 206, content[first : last + 1]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if not isinstance(answer.body, bytes):
            self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        pass


def _error(status: int, message: str, code: str | None = None) -> Answer:
    headers = {"X-Error-Message": message} | ({} if code is None else {"X-Error-Code": code})
    return Answer(status, {"error": message}, **headers)


def _upload_mode(file: dict, tree: dict[str, str]) -> dict:
    mode = "lfs" if file["path"].endswith(_LFS_SUFFIXES) else "regular"
    return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": None}
