"""How files at addresses are asked for: HTTP by parts, object stores by Arrow. What fails is tried again."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit

from engine.base.errors import DataError, MachineError

HTTP = ("http", "https")
STORES = ("s3", "gs")
TRIES, PAUSE = 4, 0.5  # times that it is tried; seconds before the second, twice as many before the next
CONNECT, WAIT = 10, 30  # seconds
REDIRECTS = 5
AGAIN = (408, 425, 429)  # statuses that pass, beside 500 and above
DENIED = re.compile(
    "ACCESS_DENIED|UNAUTHENTICATED|PERMISSION_DENIED|ACCESS_KEY|SIGNATURE|credentials|HTTP status 40[13]"
)
T = TypeVar("T")


@dataclass(frozen=True)
class Status:
    """What is at an address. tag: changes when the file does: its ETag, size and time."""

    size: int
    tag: str
    folder: bool = False


class _Passing(Exception):
    """It may succeed when it is tried again."""


def status(url: str) -> Status:
    """What is at an address. Raises: FileNotFoundError, MachineError."""
    return _tried(url, lambda: _http_status(url) if _is_http(url) else _store_status(url))


def read(url: str, found: Status, start: int, stop: int) -> bytes:
    """Bytes start … stop-1 of a file. Raises: MachineError."""

    def part() -> bytes:
        content = _http_part(url, found, start, stop) if _is_http(url) else _store_part(url, found, start, stop)
        if len(content) != stop - start:
            raise _Passing(f"{len(content)} of {stop - start} bytes came")
        return content

    try:
        return _tried(url, part)
    except FileNotFoundError:
        raise MachineError(f"{url} is not there any more; put it back, and run the same command again") from None


def listed(url: str) -> dict[str, Status]:
    """All files below an address. Raises: DataError where it cannot be listed, MachineError."""
    if _is_http(url):
        raise DataError(f"{url}: HTTP lists no files; name them, several as {{a,b}} or {{0000..0009}}")

    def found() -> dict[str, Status]:
        from pyarrow.fs import FileSelector  # it takes a while to import

        store, key = _parts(url)
        infos = store.get_file_info(FileSelector(key, recursive=True))
        scheme = url.partition("://")[0]
        return {f"{scheme}://{info.path}": _of_info(info) for info in infos if info.type.name == "File"}

    return _tried(url, found)


def _tried(url: str, call: Callable[[], T]) -> T:
    """What a call gives. Raises: FileNotFoundError, MachineError after several tries."""
    for attempt in range(1, TRIES + 1):
        try:
            return call()
        except (FileNotFoundError, MachineError, DataError):
            raise
        except PermissionError as error:
            raise _denied(url, error) from None
        except Exception as error:  # clients of stores raise errors of many packages
            if DENIED.search(str(error)):
                raise _denied(url, error) from None
            if attempt == TRIES:
                raise MachineError(
                    f"{url} cannot be read ({_first_line(error)}, tried {TRIES} times); check the network and the "
                    "address, and run the same command again: it goes on"
                ) from None
            time.sleep(PAUSE * 2 ** (attempt - 1))
    raise AssertionError("the last try returns or raises")


def _denied(url: str, error: object) -> MachineError:
    return MachineError(
        f"{url}: access is denied ({_first_line(error)}); check the address, and set the credentials in the "
        "environment (docs/guides/data.md)"
    )


def _first_line(error: object) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _is_http(url: str) -> bool:
    return url.startswith(("http://", "https://"))


# HTTP


@lru_cache(maxsize=1)
def _session(process: int) -> Any:
    """The connections of this process; a forked one makes its own."""
    import requests

    return requests.Session()


def _asked(url: str, start: int, stop: int) -> Any:
    """The answer to a request for a part of a file, its content not read yet. Raises: what `_tried` takes."""
    import requests  # it takes a while to import

    headers = {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
    at = url
    for _ in range(REDIRECTS + 1):
        try:
            answer = _session(os.getpid()).get(
                at, headers=headers, stream=True, allow_redirects=False, timeout=(CONNECT, WAIT)
            )
        except (requests.exceptions.InvalidURL, UnicodeError) as error:
            raise DataError(f"{url} is no address ({_first_line(error)}); check it") from None
        if not answer.is_redirect:
            _check_status(url, answer)
            return answer
        answer.close()
        there = urljoin(at, answer.headers["Location"])
        _check_redirect(url, at, there)
        at = there
    raise MachineError(f"{url} leads from address to address without an end; give the one of the file itself")


def _check_status(url: str, answer: Any) -> None:
    code = answer.status_code
    if code in (206, 416):
        return
    answer.close()
    if code == 200:
        raise MachineError(
            f"{url}: its server sends files whole only (no HTTP ranges); fetch the file, and give its path"
        )
    if code in (404, 410):
        raise FileNotFoundError(2, "no such file", url)
    if code in (401, 403):
        raise PermissionError(f"HTTP {code}")
    if code in AGAIN or code >= 500:
        raise _Passing(f"HTTP {code}")
    raise MachineError(f"{url}: its server answers HTTP {code}; check the address")


def _check_redirect(url: str, at: str, there: str) -> None:
    """Refuse a redirect to an address of this machine or its network, where the study does not name that host."""
    target = urlsplit(there)
    if target.hostname == urlsplit(url).hostname and target.scheme in HTTP:
        return
    problem = None
    if target.scheme not in HTTP or (at.startswith("https://") and target.scheme != "https"):
        problem = f"an address of {target.scheme or 'no kind'}"
    else:
        found = socket.getaddrinfo(target.hostname, target.port or 443, type=socket.SOCK_STREAM)
        if not all(ipaddress.ip_address(str(entry[4][0]).partition("%")[0]).is_global for entry in found):
            problem = "an address within a private network"
    if problem:
        raise MachineError(
            f"{url} leads to {target.hostname}, {problem}, which is not followed; give that address itself if "
            "it is meant"
        )


def _http_status(url: str) -> Status:
    with _asked(url, 0, 1) as answer:
        whole = answer.headers.get("Content-Range", "").rpartition("/")[2]
        if not whole.isdigit():
            raise MachineError(f"{url}: its server does not say how large the file is; fetch it, and give its path")
        return Status(int(whole), _tag(answer, int(whole)))


def _http_part(url: str, found: Status, start: int, stop: int) -> bytes:
    with _asked(url, start, stop) as answer:
        whole = answer.headers.get("Content-Range", "").rpartition("/")[2]
        if not whole.isdigit() or _tag(answer, int(whole)) != found.tag:
            raise MachineError(f"{url} has changed while it was read; run the same command again")
        content: bytes = answer.raw.read(stop - start + 1, decode_content=False)
        return content


def _tag(answer: Any, size: int) -> str:
    """The strong ETag where there is one: the time of a file may differ between the machines that serve it."""
    tag = answer.headers.get("ETag", "")
    return f"{size} {tag}" if tag else f"{size} {answer.headers.get('Last-Modified', '')}"


# object stores


@lru_cache(maxsize=4)
def _store(scheme: str) -> Any:
    """The client of a store, with credentials from the environment."""
    from pyarrow import fs  # it takes a while to import

    if scheme != "s3":
        return fs.GcsFileSystem(retry_time_limit=timedelta(seconds=WAIT))
    env = os.environ.get
    endpoint = env("AWS_ENDPOINT_URL_S3") or env("AWS_ENDPOINT_URL") or ""
    kind, _, place = endpoint.rpartition("://")
    return fs.S3FileSystem(
        endpoint_override=place.rstrip("/") or None,
        scheme=kind or "https",
        region=env("AWS_REGION") or env("AWS_DEFAULT_REGION"),
        connect_timeout=CONNECT,
        request_timeout=WAIT,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=1),  # it is tried again here
    )


def _parts(url: str) -> tuple[Any, str]:
    """(the client, what it calls the file)."""
    scheme, _, key = url.partition("://")
    return _store(scheme), key


def _store_status(url: str) -> Status:
    store, key = _parts(url)
    info = store.get_file_info(key)
    if info.type.name == "NotFound":
        raise FileNotFoundError(2, "no such file", url)
    return _of_info(info)


@lru_cache(maxsize=64)
def _opened(url: str, _found: Status) -> Any:
    store, key = _parts(url)
    return store.open_input_file(key)


def _store_part(url: str, found: Status, start: int, stop: int) -> bytes:
    file = _opened(url, found)
    if file.size() != found.size:
        raise MachineError(f"{url} has changed while it was read; run the same command again")
    content: bytes = file.read_at(stop - start, start)
    return content


def _of_info(info: Any) -> Status:
    if info.type.name == "Directory":
        return Status(0, "", True)
    return Status(int(info.size), f"{info.size} {info.mtime_ns}")
