"""A stand-in for the Hugging Face Hub on 127.0.0.1, as much of it as the tests need."""

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN, OWNER = "hf_of_user", "user"  # who may write to user/...


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def is_large(name: str) -> bool:
    return name.endswith((".safetensors", ".bin"))


@dataclass
class Repository:
    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Make a commit of these files alone; return its hash."""
        sha = hashlib.sha1(f"{branch} {len(self.commits)}".encode()).hexdigest()
        self.commits[sha], self.refs[branch] = dict(files), sha
        return sha


@dataclass
class Hub:
    """Repositories by name, what was asked for, and what goes wrong.

    Attributes:
        repos: by `owner/name`, of data sets by `datasets/owner/name`.
        requests: method, path and Range of each.
        sent_instead: other bytes than those that are stated, by name of the file.
        cuts: so many downloads are cut off halfway.
    """

    repos: dict[str, Repository] = field(default_factory=dict)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    sent_instead: dict[str, bytes] = field(default_factory=dict)
    cuts: int = 0
    uploads: dict[str, bytes] = field(default_factory=dict)
    url: str = ""

    def add(self, repo: str, files: dict[str, bytes], **options) -> str:
        """Make a repository with one commit; return its hash."""
        self.repos[repo] = Repository(**options)
        return self.repos[repo].commit(files)

    def fetched(self) -> list[str]:
        """Return the names of the files that were downloaded, in order."""
        paths = [path for method, path, _ in self.requests if method == "GET"]
        return [p.split("/", 5)[5] for p in paths if "/resolve/" in p]


@contextmanager
def serve():
    """Run a stand-in until the end of the block."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._answer()

    do_GET = do_POST = do_PUT = do_HEAD

    def _answer(self):
        self.path, self.query = urlsplit(self.path)[2:4]
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.requests.append((self.command, self.path, self.headers.get("Range")))
        for pattern, answer in _ROUTES:
            found = re.fullmatch(pattern, self.path)
            if found:
                return answer(self, *map(unquote, filter(None, found.groups())))
        self._send(404, {"error": "no such page"})

    def _send(self, status, content=None, **headers):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        headers.setdefault("Content-Length", str(len(data)))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _may_write(self, repo):
        known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        return known and repo.startswith(f"{OWNER}/")

    def _find(self, name, revision):
        """Return a repository and a commit's hash, or None after saying what is wrong."""
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and not self._may_write(name)):
            self._send(404 if repo is None else 401, {}, X_Error_Code="RepoNotFound")
            return None
        sha = repo.refs.get(revision, revision)
        if sha not in repo.commits:
            self._send(404, {}, X_Error_Code="RevisionNotFound")
            return None
        return repo, sha

    def info(self, name, revision=None):
        found = self._find(name, revision or "main")
        if found:
            repo, sha = found
            siblings = [_entry(*file) for file in repo.commits[sha].items()]
            facts = {"id": name, "sha": sha, "private": repo.private}
            facts["id"] = name.removeprefix("datasets/")
            self._send(200, facts | {"siblings": siblings, "tags": []})

    def file(self, name, revision, path):
        found = self._find(name, revision)
        if not found:
            return
        repo, sha = found
        if path not in repo.commits[sha]:
            return self._send(404, {}, X_Error_Code="EntryNotFound")
        data = repo.commits[sha][path]
        stated = hashlib.sha256(data).hexdigest() if is_large(path) else git_sha1(data)
        data = self.hub.sent_instead.get(path, data)
        headers = {
            "X_Repo_Commit": sha,
            "ETag": f'"{stated}"',
            "Accept_Ranges": "bytes",
        }
        start, asked = 0, self.headers.get("Range")
        rest = data
        if asked:
            start, end = re.match(r"bytes=(\d+)-(\d*)", asked).groups()
            start, end = int(start), min(int(end or len(data)), len(data) - 1)
            headers["Content_Range"] = f"bytes {start}-{end}/{len(data)}"
            rest = data[start : end + 1]
        if self.command == "GET" and self.hub.cuts and len(rest) > 1:
            self.hub.cuts -= 1
            self.close_connection = True
            rest, headers["Content-Length"] = rest[: len(rest) // 2], str(len(rest))
        self._send(206 if asked else 200, rest, **headers)

    def tree(self, name, revision, folder=""):
        """List what lies in a folder, in its folders too where that is asked for."""
        found = self._find(name, revision)
        if not found:
            return
        repo, sha = found
        below = f"{folder.strip('/')}/".lstrip("/")
        paths = {path for path in repo.commits[sha] if path.startswith(below)}
        every = paths | {
            str(parent) for path in paths for parent in PurePosixPath(path).parents
        }
        wanted = (
            every
            if "recursive=true" in self.query.lower()
            else {below + path.removeprefix(below).split("/")[0] for path in paths}
        )
        self._send_entries(repo.commits[sha], wanted - {".", folder})

    def paths(self, name, revision):
        found = self._find(name, revision)
        if found:
            repo, sha = found
            asked = parse_qs(self.body.decode()).get("paths", [])
            self._send_entries(repo.commits[sha], asked)

    def _send_entries(self, files, paths):
        entries = []
        for path in sorted(paths):
            if path in files:
                data = files[path]
                facts = {"size": len(data), "oid": git_sha1(data)}
                entries.append({"type": "file", "path": path} | facts)
            elif any(name.startswith(f"{path}/") for name in files):
                entries.append({"type": "directory", "path": path, "oid": "0" * 40})
        self._send(200, entries)

    def create(self):
        wanted = json.loads(self.body)
        name = f"{wanted.get('organization') or OWNER}/{wanted['name']}"
        if name in self.hub.repos:
            return self._send(409, {"url": f"{self.hub.url}/{name}"})
        if not self._may_write(name):
            return self._send(403, {"error": "not yours"})
        private = wanted.get("visibility") == "private"
        self.hub.add(name, {".gitattributes": b""}, private=private)
        self._send(200, {"url": f"{self.hub.url}/{name}"})

    def branch(self, name, branch):
        repo = self.hub.repos[name]
        repo.refs.setdefault(branch, repo.refs["main"])
        self._send(200, {})

    def preupload(self, name, revision):
        if not self._may_write(name):
            return self._send(403, {"error": "not yours"})
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if is_large(file["path"]) else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(self.body)["files"]
        ]
        self._send(200, {"files": files})

    def batch(self, name):
        objects = [
            wanted
            | {"actions": {"upload": {"href": f"{self.hub.url}/lfs/{wanted['oid']}"}}}
            for wanted in json.loads(self.body)["objects"]
        ]
        self._send(200, {"objects": objects, "transfer": "basic"})

    def upload(self, oid):
        assert hashlib.sha256(self.body).hexdigest() == oid
        self.hub.uploads[oid] = self.body
        self._send(200, {})

    def commit(self, name, branch):
        repo = self.hub.repos[name]
        files = dict(repo.commits[repo.refs[branch]])
        for line in self.body.splitlines():
            entry = json.loads(line)
            what, value = entry["key"], entry["value"]
            if what == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif what == "lfsFile":
                files[value["path"]] = self.hub.uploads[value["oid"]]
            elif what == "deletedFile":
                del files[value["path"]]
        sha = repo.commit(files, branch)
        url = f"{self.hub.url}/{name}/commit/{sha}"
        self._send(200, {"commitUrl": url, "commitOid": sha})

    def yaml(self):
        self._send(200, {"warnings": [], "errors": []})


def _entry(path, data):
    entry = {"rfilename": path, "size": len(data), "blobId": git_sha1(data)}
    if is_large(path):
        sha256 = hashlib.sha256(data).hexdigest()
        entry["lfs"] = {"sha256": sha256, "size": len(data), "pointerSize": 134}
    return entry


_REPO = r"([\w.-]+/[\w.-]+)"
_ROUTES = (
    (rf"/api/models/{_REPO}", _Handler.info),
    (rf"/api/models/{_REPO}/revision/([^/]+)", _Handler.info),
    (rf"/api/models/{_REPO}/preupload/([^/]+)", _Handler.preupload),
    (rf"/api/models/{_REPO}/commit/([^/]+)", _Handler.commit),
    (rf"/api/models/{_REPO}/branch/([^/]+)", _Handler.branch),
    (r"/api/repos/create", _Handler.create),
    (r"/api/validate-yaml", _Handler.yaml),
    (rf"/{_REPO}\.git/info/lfs/objects/batch", _Handler.batch),
    (r"/lfs/(\w+)", _Handler.upload),
    (rf"/{_REPO}/resolve/([^/]+)/(.+)", _Handler.file),
    # Of data sets, which have names of their own.
    (r"/api/(datasets/[\w.-]+/[\w.-]+)(?:/revision/([^/]+))?", _Handler.info),
    (r"/api/(datasets/[\w.-]+/[\w.-]+)/tree/([^/]+)(?:/(.*))?", _Handler.tree),
    (r"/api/(datasets/[\w.-]+/[\w.-]+)/paths-info/([^/]+)", _Handler.paths),
    (r"/(datasets/[\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)", _Handler.file),
)
