"""Files and folders that are whole or not there, and that show it when they are damaged later.

They are written beside their place, flushed to the disk and renamed. A seal says what each file held: of a file it is
`NAME.seal` beside it, of a folder `.seal` in it; a line with its own sum, and JSON, name → [bytes, sum of the first
4 KB, sum of all]. What has no seal was not finished, and counts as not there.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SEAL = ".seal"
PART = ".part-"  # what is being written is named so; its suffix stays
HEAD = 4096
QUICK = 64 << 20  # bytes of a sealed thing up to which its sums are always checked: 0.1 s
MANY = 100  # files of a folder from which the whole disk is flushed at once
Entries = dict[str, tuple[int, str, str]]


class Damaged(Exception):
    """A file or folder is not as it was written. `str` says how; whoever opens it makes it anew."""


@contextmanager
def written_whole(target: Path, beside: Iterable[Path] = ()) -> Iterator[Path]:
    """Where to write a file or folder that takes the place of `target`, sealed, once the block has ended.

    beside: further files that the seal of a file vouches for. Whatever stops the block leaves nothing of it.
    Raises: OSError that names the target.
    """
    with _scratch(target) as scratch:
        yield scratch
        _put(scratch, target, _sums({f.relative_to(target.parent).as_posix(): f for f in beside}) | _entries(scratch))


@contextmanager
def replaced(target: Path) -> Iterator[Path]:
    """The same for a file that a user asked for: without a seal."""
    with _scratch(target) as scratch:
        yield scratch
        flush(scratch)
        scratch.replace(target)
        flush(target.parent)


@contextmanager
def _scratch(target: Path) -> Iterator[Path]:
    """A place beside the target, of which nothing is left when the block fails."""
    scratch = target.with_name(PART + target.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    discard(scratch)
    try:
        yield scratch
    except BaseException as error:
        discard(scratch)
        if isinstance(error, OSError) and error.filename in (None, str(scratch)):
            raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(target)) from error
        raise


def write_text(target: Path, text: str) -> None:
    """Write a text file whole, and seal it."""
    with written_whole(target) as scratch:
        scratch.write_text(text, encoding="utf-8")


def move_whole(made: Path, target: Path) -> None:
    """Flush and seal a folder that was made elsewhere on the disk, and rename it to its place."""
    _put(made, target, _entries(made))


def seal_file(file: Path) -> None:
    """Flush and seal a file that was written in its place."""
    _write_seal(_seal_of(file), _sums({file.name: file}))


def seal_folder(folder: Path) -> None:
    """Flush and seal a folder that was filled in its place.

    The seals of what lies in it go into its own; what was never finished there is removed.
    """
    known: Entries = {}
    inner = [mark for mark in folder.rglob("*" + SEAL) if mark != folder / SEAL]
    for mark in inner:
        with suppress(Damaged):  # a file of the folder's own that is named so
            known |= {(mark.parent / name).relative_to(folder).as_posix(): e for name, e in read_seal(mark).items()}
            mark.unlink()
    for left in list(folder.rglob(PART + "*")):
        discard(left)
    _write_seal(folder / SEAL, _entries(folder, known))


def share(folder: Path, name: str, target: Path) -> None:
    """Link a file or folder that lies in a sealed folder into another folder, sealed by what is known of it.

    Nothing is linked that is not there, or that `target` has already.
    """
    known = read_seal(folder / SEAL) if is_whole(folder) else {}
    link, scratch = target / name, target / (PART + name)
    known = {n: e for n, e in known.items() if n == name or n.startswith(f"{name}/")}
    if is_whole(link) or not known:
        return
    discard(scratch)
    if (folder / name).is_dir():
        shutil.copytree(folder / name, scratch, copy_function=os.link)
        known = {n.removeprefix(f"{name}/"): e for n, e in known.items()}
    else:
        os.link(folder / name, scratch)
    _put(scratch, link, known)


def is_whole(target: Path, sums: bool = False) -> bool:
    """True when a file or folder is there, sealed, and its files have the sizes that its seal says. sums: see check."""
    try:
        check(target, sums=sums)
    except Damaged:
        return False
    return True


def check(target: Path, deep: bool = False, sums: bool = True) -> tuple[int, int]:
    """(files, bytes) of a sealed file or folder. Raises: Damaged.

    Sizes are compared; with `sums` the beginnings of large files, and all bytes where they are few, or when `deep`.
    """
    mark = _seal_of(target)
    if not mark.exists() and target.is_dir():
        mark = target / SEAL
    entries = read_seal(mark)
    if mark.name != SEAL and target.name not in entries:
        raise Damaged(f"{target.name} has the seal of something else")
    total = sum(size for size, _, _ in entries.values())
    for name, (size, head, content) in entries.items():
        file = mark.parent / name
        try:
            if not file.is_file():
                raise Damaged(f"{name} is {'a folder' if file.is_dir() else 'missing'}")
            if (have := file.stat().st_size) != size:
                raise Damaged(f"{name} has {have} bytes in place of {size}")
            if not sums:
                continue
            same = _sum(file) == content if deep or total <= QUICK else size <= QUICK or _sum(file, HEAD) == head
            if not same:
                raise Damaged(f"{name} holds other bytes than were written")
        except OSError as error:
            raise Damaged(f"{name} cannot be read: {error.strerror}") from error
    return len(entries), total


def read_seal(mark: Path) -> Entries:
    """What a seal says. Raises: Damaged when there is none, or none that can be read."""
    try:
        own, _, content = mark.read_bytes().partition(b"\n")
        if own.decode() != checksum(content):
            raise ValueError("sum")
        found = json.loads(content)
        return {str(name): (int(size), str(head), str(content)) for name, (size, head, content) in found.items()}
    except FileNotFoundError:
        raise Damaged("it has no seal: it was not finished, or an older djsb wrote it") from None
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise Damaged("its seal is damaged") from error


def sealed(folder: Path) -> Iterator[Path]:
    """All files and folders below a folder that have a seal, there or not; none inside another one."""
    if (folder / SEAL).exists():
        yield folder
        return
    for entry in sorted(folder.iterdir() if folder.is_dir() and not folder.is_symlink() else ()):
        if entry.name.endswith(SEAL):
            yield entry.with_name(entry.name.removesuffix(SEAL))
        elif entry.is_dir() and not entry.is_symlink():
            yield from sealed(entry)


def discard(target: Path) -> None:
    """Remove a file or folder with its seal; a link, not what it leads to."""
    for path in (target, _seal_of(target)):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk when this returns."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(handle)


def checksum(content: bytes | memoryview) -> str:
    """What two contents share only when they are equal."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _put(scratch: Path, target: Path, entries: Entries) -> None:
    """Rename what is flushed to its place, with its seal."""
    if scratch.is_dir():
        _write_seal(scratch / SEAL, entries)
    if target.is_dir() or scratch.is_dir():
        discard(target)
    discard(_seal_of(target))
    scratch.replace(target)
    if not target.is_dir():
        entries = {target.name if name == scratch.name else name: entry for name, entry in entries.items()}
        _write_seal(_seal_of(target), entries)
    flush(target.parent)


def _seal_of(file: Path) -> Path:
    return file.with_name(file.name + SEAL)


def _write_seal(mark: Path, entries: Entries) -> None:
    scratch = mark.with_name(PART + mark.name)
    content = json.dumps(entries, allow_nan=False).encode()
    try:
        scratch.write_bytes(checksum(content).encode() + b"\n" + content)
        flush(scratch)
        if mark.is_dir():
            shutil.rmtree(mark)
        scratch.replace(mark)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    flush(mark.parent)


def _entries(target: Path, known: Entries | None = None) -> Entries:
    """The flushed content of a file or folder. known: what was flushed and summed before."""
    if not target.is_dir():
        return _sums({target.name: target})
    files = {file.relative_to(target).as_posix(): file for file in target.rglob("*") if file.is_file()}
    wanted = {n: f for n, f in files.items() if n != SEAL and not f.is_symlink()}
    known = {n: e for n, e in (known or {}).items() if n in wanted}
    return {**known, **_sums({n: f for n, f in wanted.items() if n not in known})}


def _sums(files: dict[str, Path]) -> Entries:
    """Flush files; their sizes and sums by name."""
    if len(files) > MANY:
        os.sync()
    else:
        for file in files.values():
            flush(file)
    return {name: (file.stat().st_size, _sum(file, HEAD), _sum(file)) for name, file in files.items()}


def _sum(file: Path, most: int | None = None) -> str:
    with file.open("rb") as content:
        if most is not None:
            return checksum(content.read(most))
        return hashlib.file_digest(content, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
