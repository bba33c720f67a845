"""A store that speaks as much of S3 as a client needs to put, get, list and delete whole objects, in this process."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

BUCKET = "bucket"


class ObjectStore:
    """Objects by key in one bucket.

    Attributes:
        objects: their content.
        log: what was written and deleted, in order.
        refuses: a status and an S3 error code that every request gets; None: none.
        takes: how many more objects it takes before it refuses all.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.times: dict[str, int] = {}
        self.log: list[tuple[str, str, bytes]] = []
        self.refuses: tuple[int, str] | None = None
        self.takes = 10**9
        store = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *words: Any) -> None:
                pass

            def _answer(self, status: int, content: bytes = b"", **headers: str) -> None:
                self.send_response(status)
                for name, value in {"Content-Length": str(len(content)), "ETag": '"0"', **headers}.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            def _fail(self, status: int, code: str) -> None:
                self._answer(status, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode())

            def _give(self, content: bytes) -> None:
                first, _, last = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
                asked = content[int(first) : int(last) + 1] if first else content
                self._answer(206 if first else 200, asked, Last_Modified="Wed, 01 Jul 2026 00:00:00 GMT")

            def _body(self) -> bytes:
                if self.headers.get("Transfer-Encoding") != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length", 0)))
                body = b""
                while size := int(self.rfile.readline().strip() or b"0", 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return body

            def _handle(self) -> None:
                body = self._body()
                parts = urlsplit(self.path)
                bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
                if self.command == "PUT":
                    store.takes -= 1
                if store.takes < 0:
                    self._fail(403, "AccessDenied")
                elif store.refuses is not None:
                    self._fail(*store.refuses)
                elif bucket != BUCKET:
                    self._fail(404, "NoSuchBucket")
                elif self.command == "PUT":
                    store.objects[key], store.times[key] = _plain(body, self.headers), len(store.log)
                    store.log.append(("put", key, store.objects[key]))
                    self._answer(200)
                elif self.command == "DELETE":
                    store.objects.pop(key, None)
                    store.log.append(("delete", key, b""))
                    self._answer(204)
                elif not key:
                    self._answer(200, b"" if self.command == "HEAD" else store.page(parse_qs(parts.query)))
                elif key in store.objects:
                    self._give(store.objects[key])
                else:
                    self._fail(404, "NoSuchKey")

            do_GET = do_HEAD = do_PUT = do_DELETE = _handle

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def page(self, query: dict[str, list[str]]) -> bytes:
        """The listing below a prefix, which ends at a delimiter where one is asked for."""
        prefix, delimiter = query.get("prefix", [""])[0], query.get("delimiter", [""])[0]
        below = sorted(key for key in self.objects if key.startswith(prefix))
        folders = {
            prefix + key[len(prefix) :].partition(delimiter)[0] + delimiter
            for key in below
            if delimiter and delimiter in key[len(prefix) :]
        }
        files = [key for key in below if not any(key.startswith(folder) for folder in folders)]
        entries = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(self.objects[key])}</Size>"
            f"<LastModified>2026-07-01T{self.times[key] // 3600:02}:{self.times[key] // 60 % 60:02}:{self.times[key] % 60:02}Z"
            "</LastModified></Contents>"
            for key in files
        )
        entries += "".join(f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>" for folder in sorted(folders))
        return f"<ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>".encode()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _plain(body: bytes, headers: Any) -> bytes:
    """A body without the marks of `aws-chunked`."""
    if "aws-chunked" not in headers.get("Content-Encoding", ""):
        return body
    content, rest = b"", body
    while rest:
        line, _, rest = rest.partition(b"\r\n")
        size = int(line.partition(b";")[0], 16)
        if not size:
            break
        content, rest = content + rest[:size], rest[size + 2 :]
    return content
