"""Write files completely or not at all; hash files and values."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from semicdvl.errors import CheckpointError, ConfigError, DataError, InputError, StoreError
from semicdvl.outputs.exchange import TEMPORARY_PREFIX, replace_folder, sync_file
from semicdvl.outputs.locks import lock_output
from semicdvl.outputs.messages import is_writing_error, make_output_error
from semicdvl.reading.regular_files import require_regular_file


@contextlib.contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which replaces `path` if the block succeeds and is deleted if not.

    The temporary file has the same suffix, since many writers choose the format by it. Errors of the libraries that
    write (safetensors, GDAL, SQLite, ...) become an `OutputError`, like those of the system.

    Raises:
        OutputError: the folder cannot be written or the disk is full.
    """
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}{path.suffix}")
    try:  # the name is known before the file is there: a signal may come as soon as it is
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    except Exception as error:
        if not is_writing_error(error):
            raise
        raise make_output_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def write_folder_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`, which replaces `path` if the block succeeds and is deleted if not.

    The lock of `path` is held meanwhile, and what killed writers left beside it is swept.

    Raises:
        OutputError: another process is writing to `path`, the parent cannot be written, or the disk is full.
    """
    with lock_output(path), _write_locked_folder(Path(os.path.realpath(path))) as temporary:
        yield temporary


@contextlib.contextmanager
def _write_locked_folder(path: Path) -> Iterator[Path]:
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{path.name}-{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        yield temporary
        replace_folder(temporary, path)
    except OSError as error:
        raise make_output_error(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def leave_nothing_if_refused(folder: Path, *, keep: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Delete what the block wrote into a folder if it ends with an error that the user must correct.

    What was there before stays. Without this the corrected call would meet the remains of the refused one.

    Args:
        folder: where the block writes; it need not exist.
        keep: asked after an error; True keeps what was written, since it can be resumed.
    """
    before = set(folder.iterdir()) if folder.is_dir() else set()
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        yield
    except (InputError, ConfigError, DataError, StoreError, CheckpointError):
        if not keep():
            for path in set(folder.iterdir()) - before if folder.is_dir() else ():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                for each in missing:
                    each.rmdir()
        raise


def write_bytes_atomically(path: Path, content: bytes, *, durable: bool = False) -> None:
    """Write a small file at once: the same as `write_atomically`, with half as many system calls.

    Args:
        path: the file.
        content: its bytes.
        durable: have the system write them to the disk before the file gets its name, so that a power cut leaves the
            older or the newer content.

    Raises:
        OutputError: the folder cannot be written or the disk is full.
    """
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}{path.suffix}")
    try:
        try:
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        with os.fdopen(handle, "wb", buffering=0) as file:
            if file.write(content) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if durable:
            sync_file(temporary)
        temporary.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise make_output_error(path, error) from error
        raise


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON, unless the file holds just that; what JSON does not know becomes its string.

    Raises:
        OutputError: the file cannot be written.
    """
    text = (json.dumps(content, indent=2, default=str) + "\n").encode()
    with contextlib.suppress(OSError):
        if path.is_file() and path.read_bytes() == text:
            return
    write_bytes_atomically(path, text, durable=True)


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hex; cached as long as size and modification time stay the same.

    Raises:
        InputError: the file cannot be read.
    """
    require_regular_file(path, remedy="Check the path")
    try:
        stat = path.stat()
        return _hash_unchanged_file(path, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror})", "Check the path") from error


@lru_cache(maxsize=65536)
def _hash_unchanged_file(path: Path, size: int, mtime_ns: int) -> str:
    """Hash the file; size and time of modification belong to the key of the cache."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def hash_values(*parts: Any) -> str:
    """Return a SHA-256 in hex over plain values (numbers, strings, lists, dicts), stable across runs and machines."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
