"""A Hub of models on this machine's loopback, for the real huggingface_hub client: repositories, commits, branches,
tags, large files by the LFS protocol, private repositories. Everything is kept in memory.

Run the client in a process of its own, with what `LocalHub.environment` gives: it reads HF_ENDPOINT when imported.
"""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import yaml


USER = "tester"
TOKEN = "hf_privateTokenThatMustNotBeSeen"


@dataclass
class Repository:
    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)  # files by path, by commit
    refs: dict[str, str] = field(default_factory=dict)  # commits by branch or tag
    large: set[str] = field(default_factory=set)  # sha256 of the files that came by LFS

    def resolve(self, revision: str) -> str | None:
        return self.refs.get(revision) or (revision if revision in self.commits else None)

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        oid = hashlib.sha1(repr((branch, len(self.commits), sorted(files))).encode()).hexdigest()
        self.commits[oid], self.refs[branch] = files, oid
        return oid


class Refusal(Exception):
    """An answer that is an error: its status and the Hub's code for it."""

    def __init__(self, status: int, code: str = "", body: dict | None = None):
        super().__init__(code)
        self.status, self.code, self.body = status, code, body or {"error": code}


class LocalHub:
    """The server; `with LocalHub() as hub:` runs it in a thread. `lfs` says which files go by LFS."""

    def __init__(self, lfs: str = r".*\.(safetensors|bin)"):
        self.lfs = re.compile(lfs)
        self.repositories: dict[str, Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.bodies: list[bytes] = []
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        # Large files come from another host, as on the Hub: a client sends no token there.
        self.storage = f"http://localhost:{self._server.server_port}"

    def __enter__(self) -> "LocalHub":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def environment(self, home: object) -> dict[str, str]:
        """Variables for a client; xet is another protocol, which needs the Hub's own storage."""
        switches = {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        return {"HF_ENDPOINT": self.endpoint, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1,localhost", **switches}

    def files(self, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        repository = self.repositories[repo_id]
        return repository.commits[repository.resolve(revision)]


class _Handler(BaseHTTPRequestHandler):
    hub: LocalHub
    protocol_version = "HTTP/1.1"

    ROUTES = [
        ("GET", r"/api/whoami-v2", "whoami"),
        ("POST", r"/api/repos/create", "create"),
        ("POST", r"/api/validate-yaml", "validate"),
        ("GET", r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", "info"),
        ("GET", r"/api/models/([^/]+/[^/]+)/tree/([^/]+)(?:/.*)?", "tree"),
        ("GET", r"/api/models/([^/]+/[^/]+)/refs", "refs"),
        ("POST", r"/api/models/([^/]+/[^/]+)/(branch|tag)/([^/]+)", "name"),
        ("POST", r"/api/models/([^/]+/[^/]+)/discussions", "open_pull_request"),
        ("GET", r"/api/models/([^/]+/[^/]+)/discussions/([0-9]+)", "pull_request"),
        ("POST", r"/api/models/([^/]+/[^/]+)/preupload/([^/]+)", "preupload"),
        ("POST", r"/api/models/([^/]+/[^/]+)/commit/([^/]+)", "commit"),
        ("POST", r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", "lfs_batch"),
        ("PUT", r"/lfs/([0-9a-f]{64})", "lfs_put"),
        ("POST", r"/lfs/verify", "lfs_verify"),
        ("GET", r"/lfs/([0-9a-f]{64})", "lfs_get"),
        ("GET", r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", "resolve"),
    ]

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        self.body = self._read()
        self.hub.requests.append((self.command, self.path))
        self.hub.bodies.append(self.body)
        method = "GET" if self.command == "HEAD" else self.command
        try:
            for verb, pattern, name in self.ROUTES:
                if verb == method and (match := re.fullmatch(pattern, parts.path)):
                    groups = (group if group is None else unquote(group) for group in match.groups())
                    return getattr(self, f"_{name}")(*groups)
            raise Refusal(404, "NoSuchRoute")
        except Refusal as refusal:
            self._send(json.dumps(refusal.body).encode(), refusal.status, {"X-Error-Code": refusal.code})

    def _read(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            chunks = []
            while size := int(self.rfile.readline(), 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _send(self, content: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _json(self, value: object, status: int = 200) -> None:
        self._send(json.dumps(value).encode(), status, {"Content-Type": "application/json"})

    def _authorized(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _check_writer(self) -> None:
        if not self._authorized():
            raise Refusal(401, "Unauthorized")

    def _repository(self, repo_id: str, revision: str | None = None) -> tuple[Repository, str]:
        """The repository and the commit, as far as the client may know of them."""
        repository = self.hub.repositories.get(repo_id)
        if repository is None or (repository.private and not self._authorized()):
            raise Refusal(404 if self._authorized() else 401, "RepoNotFound")
        oid = repository.resolve(revision or "main")
        if oid is None:
            raise Refusal(404, "RevisionNotFound")
        return repository, oid

    def _whoami(self) -> None:
        self._check_writer()
        self._json({"type": "user", "name": USER, "fullname": USER, "orgs": [], "auth": {"type": "access_token"}})

    def _create(self) -> None:
        self._check_writer()
        wanted = json.loads(self.body)
        repo_id = f"{wanted.get('organization') or USER}/{wanted['name']}"
        exists = repo_id in self.hub.repositories
        if not exists:
            repository = Repository(private=wanted.get("visibility") == "private")
            repository.commit("main", {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"})
            self.hub.repositories[repo_id] = repository
        self._json({"url": f"{self.hub.endpoint}/{repo_id}", "name": repo_id}, 409 if exists else 200)

    def _validate(self) -> None:
        content = json.loads(self.body)["content"]
        errors = []
        match = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
        try:
            data = yaml.safe_load(match[1]) if match else {}
            for model in data.get("model-index", []):
                for result in model["results"]:
                    _ = result["task"]["type"], result["dataset"]["type"], result["dataset"]["name"]
                    _ = [(metric["type"], metric["value"]) for metric in result["metrics"]]
        except (yaml.YAMLError, KeyError, AttributeError) as error:
            errors.append({"message": f"{type(error).__name__}: {error}"})
        self._json({"errors": errors, "warnings": []}, 400 if errors else 200)

    def _info(self, repo_id: str, revision: str | None) -> None:
        repository, oid = self._repository(repo_id, revision)
        files = [{"rfilename": path} for path in repository.commits[oid]]
        self._json({"id": repo_id, "modelId": repo_id, "sha": oid, "private": repository.private, "siblings": files})

    def _tree(self, repo_id: str, revision: str) -> None:
        repository, oid = self._repository(repo_id, revision)
        entries = []
        for path, content in repository.commits[oid].items():
            entry = {"type": "file", "path": path, "size": len(content), "oid": _git_hash(content)}
            if (sha := hashlib.sha256(content).hexdigest()) in repository.large:
                entry["lfs"] = {"oid": sha, "size": len(content), "pointerSize": 134}
            entries.append(entry)
        self._json(entries)

    def _refs(self, repo_id: str) -> None:
        repository, _ = self._repository(repo_id)
        refs = [
            {"name": name, "ref": f"refs/heads/{name}", "targetCommit": oid} for name, oid in repository.refs.items()
        ]
        self._json({"branches": refs, "tags": [], "converts": []})

    def _name(self, repo_id: str, kind: str, name: str) -> None:
        """A branch is in the address and may say where it starts; a tag's address says where it is put."""
        self._check_writer()
        wanted = json.loads(self.body or b"{}")
        name, start = (name, wanted.get("startingPoint")) if kind == "branch" else (wanted["tag"], name)
        repository, oid = self._repository(repo_id, start)
        if name in repository.refs:
            raise Refusal(409, "Exists")
        repository.refs[name] = oid
        self._json({})

    def _open_pull_request(self, repo_id: str) -> None:
        self._check_writer()
        repository, oid = self._repository(repo_id)
        number = 1 + sum(name.startswith("refs/pr/") for name in repository.refs)
        repository.refs[f"refs/pr/{number}"] = oid
        self._json({"num": number})

    def _pull_request(self, repo_id: str, number: str) -> None:
        repository, _ = self._repository(repo_id, f"refs/pr/{number}")
        details = {"title": "", "num": int(number), "status": "draft", "isPullRequest": True, "events": []}
        place = {"repo": {"name": repo_id, "type": "model"}, "createdAt": "2020-01-01T00:00:00.000Z"}
        self._json({**details, **place, "changes": {"base": "refs/heads/main"}, "filesWithConflicts": []})

    def _preupload(self, repo_id: str, revision: str) -> None:
        self._check_writer()
        repository, oid = self._repository(repo_id, revision)
        files = []
        for wanted in json.loads(self.body)["files"]:
            path = wanted["path"]
            mode = "lfs" if self.hub.lfs.fullmatch(path) else "regular"
            entry = {"path": path, "uploadMode": mode, "shouldIgnore": False}
            if (content := repository.commits[oid].get(path)) is not None:
                entry["oid"] = hashlib.sha256(content).hexdigest() if mode == "lfs" else _git_hash(content)
            files.append(entry)
        self._json({"files": files})

    def _commit(self, repo_id: str, revision: str) -> None:
        self._check_writer()
        repository, oid = self._repository(repo_id, revision)
        files = dict(repository.commits[oid])
        for line in self.body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
                repository.large.add(value["oid"])
            elif item["key"] == "deletedFile":
                del files[value["path"]]
        new = repository.commit(revision, files)
        self._json({"commitUrl": f"{self.hub.endpoint}/{repo_id}/commit/{new}", "commitOid": new})

    def _lfs_batch(self, repo_id: str) -> None:
        self._check_writer()
        self._repository(repo_id)
        objects = []
        for wanted in json.loads(self.body)["objects"]:
            if wanted["oid"] not in self.hub.blobs:
                actions = {
                    "upload": {"href": f"{self.hub.storage}/lfs/{wanted['oid']}"},
                    "verify": {"href": f"{self.hub.endpoint}/lfs/verify"},
                }
                wanted = {**wanted, "actions": actions}
            objects.append(wanted)
        self._json({"transfer": "basic", "objects": objects})

    def _lfs_put(self, oid: str) -> None:
        if self.headers.get("Authorization") or hashlib.sha256(self.body).hexdigest() != oid:
            raise Refusal(400, "ChecksumMismatch")
        self.hub.blobs[oid] = self.body
        self._send(b"")

    def _lfs_verify(self) -> None:
        wanted = json.loads(self.body)
        if len(self.hub.blobs.get(wanted["oid"], b"")) != wanted["size"]:
            raise Refusal(404, "NotUploaded")
        self._json({})

    def _lfs_get(self, oid: str) -> None:
        if self.headers.get("Authorization"):
            raise Refusal(400, "TokenSentToStorage")
        self._send(self.hub.blobs[oid])

    def _resolve(self, repo_id: str, revision: str, path: str) -> None:
        repository, oid = self._repository(repo_id, revision)
        headers = {"X-Repo-Commit": oid}
        content = repository.commits[oid].get(path)
        if content is None:
            return self._send(b"", 404, {"X-Error-Code": "EntryNotFound", **headers})
        sha = hashlib.sha256(content).hexdigest()
        if sha in repository.large:
            linked = {"X-Linked-Etag": f'"{sha}"', "X-Linked-Size": str(len(content))}
            return self._send(b"", 302, {"Location": f"{self.hub.storage}/lfs/{sha}", **linked, **headers})
        self._send(content, 200, {"ETag": f'"{_git_hash(content)}"', **headers})


def _git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
