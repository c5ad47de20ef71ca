# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Folders that appear complete or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hbvla_ros.errors import HbvlaError
from hbvla_ros.packed.manifest import MANIFEST_NAME


def check_output(out: Path, force: bool) -> None:
    """Refuse an output folder that is in the way, before any work is done.

    Args:
        out: folder to be written.
        force: replace a deployed folder that is already there.

    Raises:
        HbvlaError: the path is taken.
    """
    if not os.path.lexists(out):
        return
    if not force:
        raise HbvlaError(f'{out}: exists already; choose another --out or add --force')
    if out.is_symlink() or not out.is_dir():
        raise HbvlaError(f'{out}: is not a folder, --force does not replace it; remove it')
    if any(out.iterdir()) and not (out / MANIFEST_NAME).is_file():
        raise HbvlaError(
            f'{out}: is no deployed checkpoint, --force does not replace it; choose another --out'
        )


@contextmanager
def atomic_folder(out: Path, force: bool = False) -> Iterator[Path]:
    """A new folder beside ``out`` that becomes ``out`` when the block ends without an error.

    On any error, Ctrl-C included, the new folder is removed, as are parent folders made for it.

    Args:
        out: the folder to write.
        force: replace a deployed folder that is already there.

    Yields:
        The temporary folder to write into.

    Raises:
        HbvlaError: the path is taken, or the disk refuses.
    """
    out = Path(os.path.abspath(out))
    check_output(out, force)
    new_parents = [parent for parent in out.parents if not parent.exists()]
    temporary: Path | None = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(
            tempfile.mkdtemp(prefix=f'.{out.name}.', suffix='.partial', dir=out.parent)
        )
        temporary.chmod(0o777 & ~_umask())
        yield temporary
        check_output(out, force)
        _replace(temporary, out)
    except BaseException as error:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        _remove_empty(new_parents)
        if isinstance(error, OSError):
            reason = error.strerror or str(error)
            raise HbvlaError(f'{error.filename or out}: cannot write {out}: {reason}') from error
        raise


def _replace(temporary: Path, out: Path) -> None:
    """Put the finished folder in its place; the old one goes only after the new one stands."""
    if not out.exists():
        temporary.rename(out)
        return
    retired = Path(tempfile.mkdtemp(prefix=f'.{out.name}.', suffix='.old', dir=out.parent))
    old = retired / out.name
    out.rename(old)
    try:
        temporary.rename(out)
    except BaseException:
        old.rename(out)
        raise
    finally:
        shutil.rmtree(retired, ignore_errors=True)


def _remove_empty(folders: list[Path]) -> None:
    """Remove folders, innermost first, as far as they are empty."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
