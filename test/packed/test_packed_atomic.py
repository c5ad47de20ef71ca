# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from hbvla_ros.errors import HbvlaError
from hbvla_ros.packed.atomic import atomic_folder
from hbvla_ros.packed.manifest import MANIFEST_NAME


def test_folder_appears_complete(tmp_path: Path) -> None:
    out = tmp_path / 'new' / 'deployed'
    with atomic_folder(out) as folder:
        (folder / 'a').write_text('1')
        assert not out.exists()
    assert (out / 'a').read_text() == '1'
    assert [path.name for path in out.parent.iterdir()] == ['deployed']


@pytest.mark.parametrize('error', [KeyboardInterrupt, ValueError])
def test_nothing_is_left_behind(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), atomic_folder(tmp_path / 'new' / 'deployed') as folder:
        (folder / 'a').write_text('1')
        raise error
    assert list(tmp_path.iterdir()) == []


def test_full_disk_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(HbvlaError, match='deployed: No space left on device'):
        with atomic_folder(tmp_path / 'deployed'):
            raise OSError(28, 'No space left on device')
    assert list(tmp_path.iterdir()) == []


def test_unwritable_parent_is_one_line(tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('')
    with pytest.raises(HbvlaError, match='cannot write'), atomic_folder(tmp_path / 'file' / 'x'):
        pass


def test_existing_folder_needs_force_and_must_be_ours(tmp_path: Path) -> None:
    out = tmp_path / 'deployed'
    out.mkdir()
    (out / 'holiday.jpg').write_text('x')
    with pytest.raises(HbvlaError, match='exists already'), atomic_folder(out):
        pass
    with pytest.raises(HbvlaError, match='no deployed checkpoint'), atomic_folder(out, True):
        pass
    assert (out / 'holiday.jpg').exists()
    (out / MANIFEST_NAME).write_text('{}')
    with atomic_folder(out, force=True) as folder:
        (folder / MANIFEST_NAME).write_text('new')
    assert [path.name for path in tmp_path.rglob('*')] == ['deployed', MANIFEST_NAME]
    assert (out / MANIFEST_NAME).read_text() == 'new'


def test_failed_replacement_keeps_the_old_folder(tmp_path: Path) -> None:
    out = tmp_path / 'deployed'
    out.mkdir()
    (out / MANIFEST_NAME).write_text('old')
    with pytest.raises(KeyboardInterrupt), atomic_folder(out, force=True):
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.rglob('*')] == ['deployed', MANIFEST_NAME]
