"""A server that follows the HTTP API of the Hugging Face Hub as far as models are concerned.

It has what huggingface_hub's client asks to make a repository, commit to it (small files in the
commit, large ones by Git LFS) and fetch it again. `HF_ENDPOINT` names it; `HF_HUB_DISABLE_XET=1`
keeps the client from asking for Xet storage.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

TOKEN = "hf_of_a_test"
_LARGE = (".safetensors", ".gguf")


@dataclass
class Hub:
    """What the server holds.

    Attributes:
        files: Of each repository's commits, the content by path.
        heads: The latest commit of a repository's branch.
        private: The repositories that were made private.
        breaks: Whether large files arrive changed.
    """

    url: str = ""
    files: dict[tuple[str, str], dict[str, bytes]] = field(default_factory=dict)
    heads: dict[tuple[str, str], str] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    blobs: dict[str, bytes] = field(default_factory=dict)
    breaks: bool = False

    def at(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Return a commit and its files, by branch or commit."""
        commit = self.heads.get((name, revision), revision)
        found = self.files.get((name, commit))
        return None if found is None else (commit, found)


@contextmanager
def serving() -> Iterator[Hub]:
    """Serve an empty Hub on a free port of this machine."""
    hub = Hub()

    class Handler(_Handler):
        """Of this Hub."""

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_arguments: Any) -> None:
        """Say nothing."""

    def _answer(self, content: Any, status: int = 200, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _refuse(self, status: int, code: str) -> None:
        self._answer({"error": code}, status, X_Error_Code=code, X_Error_Message=code)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        words = urlsplit(self.path).path.strip("/").split("/")
        name = "/".join(words[2:4] if words[0] == "api" else words[:2])
        if words[:2] == ["api", "models"]:
            place = words[5] if len(words) > 5 else "main"
        else:
            place = words[3]
        found = self.hub.at(name, place)
        if found is None:
            self._refuse(404, "RepoNotFound")
            return
        commit, files = found
        if words[0] != "api":  # /owner/name/resolve/revision/path
            content = files.get("/".join(words[4:]))
            if content is None:
                self._refuse(404, "EntryNotFound")
                return
            etag = hashlib.sha256(content).hexdigest()
            self._answer(content, X_Repo_Commit=commit, ETag=f'"{etag}"')
        elif len(words) > 4 and words[4] == "tree":
            self._answer(
                [
                    {"type": "file", "path": path, "size": len(content), "oid": commit}
                    for path, content in files.items()
                ]
            )
        else:
            siblings = [{"rfilename": path} for path in files]
            self._answer({"id": name, "modelId": name, "sha": commit, "siblings": siblings})

    def do_PUT(self) -> None:
        oid, body = self.path.rpartition("/")[2], self._body()
        self.hub.blobs[oid] = body[:-1] + bytes([body[-1] ^ 1]) if self.hub.breaks else body
        self._answer({})

    def do_POST(self) -> None:
        path, body = urlsplit(self.path).path, self._body()
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._refuse(401, "Unauthorized")
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif path.endswith("/info/lfs/objects/batch"):
            wanted = json.loads(body)["objects"]
            self._answer(
                {
                    "transfer": "basic",
                    "objects": [
                        one | {"actions": {"upload": {"href": f"{self.hub.url}/lfs/{one['oid']}"}}}
                        for one in wanted
                    ],
                }
            )
        elif "/preupload/" in path:
            self._answer(
                {
                    "files": [
                        {
                            "path": one["path"],
                            "uploadMode": "lfs" if one["path"].endswith(_LARGE) else "regular",
                            "shouldIgnore": False,
                        }
                        for one in json.loads(body)["files"]
                    ]
                }
            )
        elif "/branch/" in path:
            name, branch = "/".join(path.split("/")[3:5]), path.rpartition("/")[2]
            self.hub.heads.setdefault((name, branch), self.hub.heads[name, "main"])
            self._answer({})
        elif "/commit/" in path:
            self._commit("/".join(path.split("/")[3:5]), path.rpartition("/")[2], body)

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        if (name, "main") in self.hub.heads:
            self._answer({"url": f"{self.hub.url}/{name}"}, 409)
            return
        self.hub.heads[name, "main"] = first = hashlib.sha1(name.encode()).hexdigest()
        self.hub.files[name, first] = {".gitattributes": b"*.gguf filter=lfs\n"}
        if asked.get("private") or asked.get("visibility") == "private":
            self.hub.private.add(name)
        self._answer({"url": f"{self.hub.url}/{name}", "name": name})

    def _commit(self, name: str, branch: str, body: bytes) -> None:
        found = self.hub.at(name, branch)
        assert found is not None
        files = dict(found[1])
        for line in body.splitlines():
            told = json.loads(line)
            value = told["value"]
            if told["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif told["key"] == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
            elif told["key"] == "deletedFile":
                del files[value["path"]]
        commit = hashlib.sha1(body + found[0].encode()).hexdigest()
        self.hub.heads[name, branch] = commit
        self.hub.files[name, commit] = files
        url = f"{self.hub.url}/{name}/commit/{commit}"
        self._answer({"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""})
