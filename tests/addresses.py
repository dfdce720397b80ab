"""A folder served on loopback, as a web server with ranges and as the part of S3 that reading needs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


class Server(ThreadingHTTPServer):
    """Files of a folder. sent: bytes of each; answers: path → statuses that come first; moved: path → where it is."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.ranges = folder, True
        self.sent: dict[str, int] = {}
        self.answers: dict[str, list[int]] = {}
        self.moved: dict[str, str] = {}
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        at = urlsplit(self.path)
        path, query = unquote(at.path), parse_qs(at.query)
        if "list-type" in query:
            self._listing(path.strip("/"), query.get("prefix", [""])[0], query.get("delimiter", [""])[0])
            return
        file = self.server.folder / path.lstrip("/")
        if path in self.server.moved:
            self._send(302, b"", {"Location": self.server.moved[path]}, body)
        elif self.server.answers.get(path):
            self._send(self.server.answers[path].pop(0), b"", {}, body)
        elif not file.is_file():
            self._send(404, b"", {}, body)
        else:
            self._file(path, file.read_bytes(), body)

    def _file(self, path: str, content: bytes, body: bool) -> None:
        told = {
            "ETag": f'"{hashlib.md5(content).hexdigest()}"', "Accept-Ranges": "bytes",
            "Last-Modified": "Wed, 01 Jan 2025 00:00:00 GMT",
        }  # fmt: skip
        asked = self.headers.get("Range") if self.server.ranges else None
        status, part = 200, content
        if asked:
            start, _, stop = asked.removeprefix("bytes=").partition("-")
            part = content[int(start) : int(stop) + 1 if stop else None]
            status = 206 if part else 416
            last = int(start) + len(part) - 1
            told["Content-Range"] = f"bytes {start}-{last}/{len(content)}" if part else f"bytes */{len(content)}"
        if body:
            self.server.sent[path] = self.server.sent.get(path, 0) + len(part)
        self._send(status, part, told, body)

    def _listing(self, bucket: str, prefix: str, delimiter: str) -> None:
        root = self.server.folder / bucket
        names = sorted(str(f.relative_to(root)) for f in root.rglob("*") if f.is_file())
        there = [name for name in names if name.startswith(prefix)]
        plain = [name for name in there if not delimiter or delimiter not in name[len(prefix) :]]
        folders = {prefix + n[len(prefix) :].partition(delimiter)[0] + delimiter for n in there if n not in plain}
        text = "".join(
            f"<Contents><Key>{escape(name)}</Key><Size>{(root / name).stat().st_size}</Size>"
            "<LastModified>2025-01-01T00:00:00.000Z</LastModified></Contents>"
            for name in plain
        ) + "".join(f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" for name in sorted(folders))
        head = f"<Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(there)}</KeyCount>"
        whole = f"<ListBucketResult>{head}<IsTruncated>false</IsTruncated>{text}</ListBucketResult>"
        self._send(200, whole.encode(), {"Content-Type": "application/xml"}, True)

    def _send(self, status: int, content: bytes, told: dict[str, str], body: bool) -> None:
        self.send_response(status)
        for name, value in {**told, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


@contextmanager
def served(folder: Path) -> Iterator[Server]:
    """A folder at `server.url`; each folder in it is a bucket for clients of S3."""
    server = Server(folder)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
