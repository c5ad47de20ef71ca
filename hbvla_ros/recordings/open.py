# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Recognises what a path holds and opens it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from hbvla_ros.errors import HbvlaError
from hbvla_ros.recordings.recording import Given, Needs, Recording

_HDF5_SUFFIXES = ('.hdf5', '.h5')
_TAKEN = (
    'hbvla demos writes episode_*.npz; ALOHA episode_*.hdf5 and rosbag2 folders, .mcap and .db3 '
    'files are taken as well'
)


def open_recordings(path: Path, needs: Needs, given: Given | None = None) -> list[Recording]:
    """Open every episode at a path.

    Args:
        path: a folder of simulator episodes, of HDF5 episodes or of bags, a folder of such
            folders (one a task, as ``hbvla demos`` makes of several), a bag folder, or a single
            file of any kind.
        needs: what the policy takes.
        given: what the recordings do not say themselves.

    Returns:
        The recordings, sorted by the name of their file; at least one.

    Raises:
        HbvlaError: nothing there, several kinds in one folder, or a recording that is damaged or
            does not fit the policy.
    """
    given = given or Given()
    if not path.exists():
        raise HbvlaError(f'{path}: no such folder or file; give recorded episodes')
    kind, paths = _recognise(path)
    make = _READERS[kind]
    return [recording for one in paths for recording in make(one, needs, given)]


def _recognise(path: Path) -> tuple[str, list[Path]]:
    """Kind of what lies at a path, and each episode's own path."""
    if path.is_file() or (path / 'metadata.yaml').is_file():
        kind = _kind(path)
        if kind is None:
            fix = f'{path}: not a recorded episode; {_TAKEN}'
            if path.suffix == '.bag':
                fix = f'{path}: a ROS 1 bag; convert it with "rosbags-convert --src {path.name}"'
            raise HbvlaError(fix)
        return kind, [path]
    found = _kinds_in(path)
    if not found:
        # A bag folder is an episode itself, so it has been found already.
        for folder in sorted(one for one in path.iterdir() if one.is_dir()):
            for kind, paths in _kinds_in(folder).items():
                found.setdefault(kind, []).extend(paths)
    if not found:
        raise HbvlaError(f'{path}: no recorded episode in it; {_TAKEN}')
    if len(found) > 1:
        names = ', '.join(paths[0].name for paths in found.values())
        raise HbvlaError(
            f'{path}: holds several kinds of episodes ({names}); put them into folders of their own'
        )
    return next(iter(found.items()))


def _kinds_in(folder: Path) -> dict[str, list[Path]]:
    """Episodes that lie in a folder, by kind."""
    found: dict[str, list[Path]] = {}
    for one in sorted(folder.iterdir()):
        kind = _kind(one)
        # A dataset folder holds other arrays too.
        if kind == 'simulator' and not one.name.startswith('episode_'):
            continue
        if kind is not None:
            found.setdefault(kind, []).append(one)
    return found


def _kind(path: Path) -> str | None:
    if path.is_dir():
        return 'rosbag' if (path / 'metadata.yaml').is_file() else None
    if path.name.startswith('.'):
        return None
    if path.suffix == '.npz':
        return 'simulator'
    if path.suffix in _HDF5_SUFFIXES:
        return 'hdf5'
    return 'rosbag' if path.suffix in ('.mcap', '.db3') else None


def _simulator(path: Path, needs: Needs, given: Given) -> Sequence[Recording]:
    from hbvla_ros.recordings.simulator import SimulatorEpisode

    return [SimulatorEpisode(path, needs)]


def _hdf5(path: Path, needs: Needs, given: Given) -> Sequence[Recording]:
    """Whose layout an HDF5 file has follows from the policy's robot."""
    if needs.robot == 'libero':
        from hbvla_ros.recordings.libero_hdf5 import libero_demonstrations

        return libero_demonstrations(path, needs, given)
    from hbvla_ros.recordings.aloha_hdf5 import AlohaEpisode

    return [AlohaEpisode(path, needs, given)]


def _bag(path: Path, needs: Needs, given: Given) -> Sequence[Recording]:
    from hbvla_ros.recordings.rosbag import BagRecording

    return [BagRecording(path, needs, given)]


# The libraries of a kind are imported only when it is there.
_READERS: dict[str, Callable[[Path, Needs, Given], Sequence[Recording]]] = {
    'simulator': _simulator,
    'hdf5': _hdf5,
    'rosbag': _bag,
}
