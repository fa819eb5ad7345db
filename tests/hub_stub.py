"""A stand-in of the hub's HTTP interface on loopback: it keeps what is sent, and can refuse."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_secretsecretsecret"


class Hub:
    """`files`: name -> bytes of the one model, None before it is made. `role`: of the token.
    `refuse`: (part of a path) -> status, "cut" for a connection that breaks off, "page" for an
    answer that is no JSON, "yaml" for front matter that is refused. `seen`: method
    and path of each request, in order; `sent`: names of each commit's files."""

    def __init__(self):
        self.files, self.role, self.orgs = None, "write", [{"name": "team", "roleInOrg": "write"}]
        self.refuse, self.seen, self.sent, self.blobs = {}, [], [], {}
        self.private = None
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *words):
                pass

            def do_GET(self):
                hub.answer(self, b"")

            def read_and_answer(self):
                hub.answer(self, self.rfile.read(int(self.headers.get("Content-Length") or 0)))

            do_POST = do_PUT = read_and_answer

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def answer(self, request, body):
        path = request.path.partition("?")[0]
        if path == "/api/agent-harnesses":  # the library's own question, of no model
            return self.say(request, {}, 404)
        self.seen.append(f"{request.command} {path}")
        for part, status in self.refuse.items():
            if part in path:
                if status == "cut":
                    return request.connection.close()
                if status == "page":  # as a proxy answers in its place
                    return self.say(request, "<html>", 502, content=b"<html>no</html>")
                if status == "yaml":
                    errors = [{"message": "language must be\nISO 639"}, {"message": "no"}]
                    return self.say(request, {"errors": errors}, 400)
                return self.say(request, {"error": "no"}, status)
        if request.headers.get("Authorization") != f"Bearer {TOKEN}" and "/lfs-put/" not in path:
            self.say(request, {"error": "Invalid credentials"}, 401)
        elif path == "/api/whoami-v2":
            auth = {"accessToken": {"role": self.role}}
            self.say(request, {"type": "user", "name": "me", "orgs": self.orgs, "auth": auth})
        elif path == "/api/repos/create":
            self.files, self.private = {}, json.loads(body).get("visibility")
            self.say(request, {"url": f"{self.url}/me/model", "id": "me/model"})
        elif path == "/api/validate-yaml":
            self.say(request, {"errors": [], "warnings": []})
        elif path.startswith("/api/models/") and self.files is None:
            self.say(request, {"error": "Repository not found"}, 404, "RepoNotFound")
        elif path.endswith("/auth-check/write"):
            self.say(request, {})
        elif path.endswith("/preupload/main"):
            self.say(request, {"files": [self.mode(one) for one in json.loads(body)["files"]]})
        elif path.endswith("/objects/batch"):
            self.say(request, self.batch(json.loads(body)))
        elif "/lfs-put/" in path:
            self.blobs[path.rpartition("/")[2]] = body
            self.say(request, {})
        elif path.endswith("/commit/main"):
            self.commit(body)
            self.say(request, {"commitOid": "c" * 40, "commitUrl": f"{self.url}/me/model/commit/c"})
        elif path.startswith("/api/models/"):
            private = self.private == "private"
            values = {"id": "me/model", "sha": "a" * 40, "private": private}
            self.say(request, values | {"siblings": self.siblings()})
        else:
            self.say(request, {"error": f"no such place: {path}"}, 404)
        return None

    def say(self, request, value, status=200, code=None, content=None):
        content = json.dumps(value).encode() if content is None else content
        request.send_response(status)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(content)))
        if code:
            request.send_header("X-Error-Code", code)
        request.end_headers()
        request.wfile.write(content)

    @staticmethod
    def is_large(name):
        return name.endswith(".safetensors")

    def mode(self, one):
        mode = "lfs" if self.is_large(one["path"]) else "regular"
        return {"path": one["path"], "uploadMode": mode, "shouldIgnore": False, "oid": None}

    def batch(self, request):
        objects = [
            one | {"actions": {"upload": {"href": f"{self.url}/lfs-put/{one['oid']}"}}}
            for one in request["objects"]
        ]
        return {"transfer": "basic", "objects": objects}

    def commit(self, body):
        names = []
        for line in body.decode().splitlines():
            one = json.loads(line)
            if one["key"] == "file":
                content = base64.b64decode(one["value"]["content"])
            elif one["key"] == "lfsFile":
                content = self.blobs[one["value"]["oid"]]
            else:
                continue
            self.files[one["value"]["path"]] = content
            names.append(one["value"]["path"])
        self.sent.append(sorted(names))

    def siblings(self):
        rows = []
        for name, content in self.files.items():
            row = {"rfilename": name, "size": len(content)}
            header = f"blob {len(content)}\0".encode()
            row["blobId"] = hashlib.sha1(header + content).hexdigest()
            if self.is_large(name):
                digest = hashlib.sha256(content).hexdigest()
                row["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 1}
            rows.append(row)
        return rows
