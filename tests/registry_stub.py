"""Registry stub: answers as a schema registry does, by the documented paths of Confluent's API."""

import base64
import json
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

NOT_FOUND = {40403: "Schema not found", 40402: "Version not found"}


class RegistryStub:
    """A registry in a thread, on a free port of this machine."""

    def __init__(self) -> None:
        self.schemas: dict[int, dict[str, Any]] = {}
        """Answer by schema id."""
        self.versions: dict[tuple[str, int], dict[str, Any]] = {}
        """Answer by subject and version."""
        self.serialized: dict[str, str] = {}
        """Descriptor in base64 by the text of a Protobuf schema: what `format=serialized` returns."""
        self.requests: list[str] = []
        """Paths of the requests."""
        self.failures: list[tuple[int, bytes]] = []
        """Status and body of the next answers."""
        self.login: str | None = None
        """User and password, with a colon between them."""
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                stub.requests.append(self.path)
                status, body = stub.answer(self.path, dict(self.headers))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Write nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def add_avro(self, schema_id: int, schema: object, **more: object) -> None:
        """Register an Avro schema. The registry leaves its type out."""
        self.schemas[schema_id] = {"schema": json.dumps(schema), **more}

    def add_protobuf(self, schema_id: int, text: str, descriptor: bytes, **more: object) -> None:
        """Register a Protobuf schema: its text, and its descriptor."""
        self.schemas[schema_id] = {"schemaType": "PROTOBUF", "schema": text, **more}
        self.serialized[text] = base64.b64encode(descriptor).decode()

    def answer(self, path: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """Return status and body of an answer."""
        if self.failures:
            return self.failures.pop(0)
        if self.login is not None:
            expected = "Basic " + base64.b64encode(self.login.encode()).decode()
            if headers.get("Authorization") != expected:
                return 401, b'{"error_code":401,"message":"Unauthorized"}'
        url = urlsplit(path)
        parts = [unquote(part) for part in url.path.strip("/").split("/")]
        if parts[:2] == ["schemas", "ids"]:
            found, code = self.schemas.get(int(parts[2])), 40403
        elif parts[0] == "subjects":
            found, code = self.versions.get((parts[1], int(parts[3]))), 40402
        else:
            return 404, b"<html>no such page</html>"
        if found is None:
            return 404, json.dumps({"error_code": code, "message": NOT_FOUND[code]}).encode()
        if parse_qs(url.query).get("format") == ["serialized"]:
            found = {**found, "schema": self.serialized[found["schema"]]}
        return 200, json.dumps(found).encode()
