# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Demonstrations in memory, as the deployed policy will see them.

Frames are held as uint8 after the policy's resize (JPEG round trip and Lanczos) and before the
centre crop. The demonstrations store JPEG at the quality of that round trip, so decoding them with
the same decoder is the round trip.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hbvla_ros.errors import HbvlaError
from hbvla_ros.vla.images import lanczos_weights

_FIRST_TASK = 'pick_place'


@dataclass(frozen=True)
class Demonstrations:
    """All labelled frames of a set of episodes.

    Attributes:
        frames: uint8 (N, cameras, size, size, 3).
        proprioception: float32 (N, P), physical units.
        chunks: float32 (N, K, A), physical units.
        auxiliary: float32 (N, X) object and tool positions, used for auxiliary losses only.
        auxiliary_known: bool (N, X), False where a column says nothing about a frame.
        auxiliary_names: names of the X columns.
        instruction_index: int64 (N,) into `instructions`.
        instructions: the distinct instructions.
        task_index: int64 (N,) into `tasks`.
        tasks: names of the tasks.
        episodes: number of episodes.
        task_episodes: number of episodes of each task.
        digest: SHA-256 over the episode files, in order.
    """

    frames: NDArray[np.uint8]
    proprioception: NDArray[np.float32]
    chunks: NDArray[np.float32]
    auxiliary: NDArray[np.float32]
    auxiliary_known: NDArray[np.bool_]
    auxiliary_names: tuple[str, ...]
    instruction_index: NDArray[np.int64]
    instructions: tuple[str, ...]
    task_index: NDArray[np.int64]
    tasks: tuple[str, ...]
    episodes: int
    task_episodes: tuple[int, ...]
    digest: str

    def __len__(self) -> int:
        return len(self.frames)


def _decode(archive: Any, camera: str, size: int) -> NDArray[np.uint8]:
    """All frames of one camera of an episode: uint8 (T, size, size, 3)."""
    import simplejpeg

    data, offsets = archive[f'jpeg_{camera}'], archive[f'offset_{camera}']
    # The same decoder settings as the policy's JPEG round trip (fast integer IDCT).
    images = [
        simplejpeg.decode_jpeg(data[begin:end].tobytes(), 'RGB', fastdct=True, fastupsample=False)
        for begin, end in zip(offsets[:-1], offsets[1:], strict=True)
    ]
    return resize_frames(torch.from_numpy(np.stack(images)), size).numpy()


def resize_frames(frames: torch.Tensor, size: int) -> torch.Tensor:
    """The policy's Lanczos resize of many frames at once.

    Args:
        frames: uint8 (T, H, W, 3).
        size: height and width of the result.

    Returns:
        uint8 (T, size, size, 3), equal to the single-frame resize but for rounding ties.
    """
    count, height, width, _ = frames.shape
    rows = torch.from_numpy(lanczos_weights(height, size))
    columns = torch.from_numpy(lanczos_weights(width, size))
    # One product for all frames and channels: a product for each frame takes several times as long.
    tall = torch.matmul(rows, frames.transpose(0, 1).reshape(height, -1).float())
    tall = tall.reshape(size, count, width, 3).permute(2, 0, 1, 3)
    small = torch.matmul(columns, tall.reshape(width, -1)).round_().clamp_(0, 255)
    small = small.to(torch.uint8).reshape(size, size, count, 3)
    return small.permute(2, 1, 0, 3).contiguous()


def _open(path: Path) -> tuple[Any, NDArray[np.generic]]:
    """An episode file and its labels (T, rows, A)."""
    try:
        archive = np.load(path, allow_pickle=False)
        return archive, archive['chunks']
    except (OSError, ValueError, KeyError) as error:
        raise HbvlaError(f'{path}: not a demonstration episode ({error}); delete it') from error


def read_episode(path: Path, cameras: Sequence[str], chunk: int, size: int) -> dict[str, Any]:
    """One episode file as arrays.

    Files of the first format have no task (there was one only) and know every column.

    Raises:
        HbvlaError: unreadable file, missing camera, or labels shorter than the chunk.
    """
    archive, labels = _open(path)
    missing = [c for c in cameras if f'jpeg_{c}' not in archive.files]
    if missing:
        raise HbvlaError(f'{path}: camera {missing[0]} is missing; record the cameras {cameras}')
    if labels.shape[1] < chunk:
        raise HbvlaError(f'{path}: labels have {labels.shape[1]} rows, the chunk needs {chunk}')
    return {
        'frames': np.stack([_decode(archive, c, size) for c in cameras], axis=1),
        'proprioception': archive['proprioception'].astype(np.float32),
        'chunks': labels[:, :chunk].astype(np.float32),
        'auxiliary': archive['auxiliary'].astype(np.float32),
        'auxiliary_known': archive['auxiliary_known']
        if 'auxiliary_known' in archive.files
        else np.ones(archive['auxiliary'].shape, bool),
        'auxiliary_names': tuple(str(name) for name in archive['auxiliary_names']),
        'instruction': str(archive['instruction']),
        'task': str(archive['task']) if 'task' in archive.files else _FIRST_TASK,
    }


def episode_paths(folders: Sequence[Path]) -> list[Path]:
    """Episode files of several folders, each folder in the order of the seeds.

    Args:
        folders: each holds episodes, or folders that do, as `hbvla demos` makes of several tasks.

    Raises:
        HbvlaError: no episode in a folder, or a folder given twice.
    """
    found: list[Path] = []
    for folder in folders:
        paths = [path for one in (folder, *sorted(folder.glob('*/'))) for path in _episodes(one)]
        if not paths:
            raise HbvlaError(f'{folder}: no episode_*.npz in it; make some with hbvla demos')
        if not set(paths).isdisjoint(found):
            raise HbvlaError(f'{folder}: given twice; name each folder once')
        found += paths
    return found


def episode_seed(path: Path) -> int:
    """The seed in the name of an episode file."""
    return int(path.stem.split('_')[1])


def _episodes(folder: Path) -> list[Path]:
    return sorted(folder.glob('episode_*.npz'), key=episode_seed)


def load_demonstrations(
    folders: Sequence[Path],
    cameras: Sequence[str],
    chunk: int,
    size: int,
    auxiliary_names: tuple[str, ...] | None = None,
) -> Demonstrations:
    """Read every episode of one or several folders.

    Args:
        folders: see :func:`episode_paths`.
        cameras: names, in the policy's order.
        chunk: rows of each label to keep.
        size: height and width of the frames.
        auxiliary_names: the columns wanted; None takes every column that some episode has.

    Raises:
        HbvlaError: no episode in a folder, or one that does not fit.
    """
    paths = episode_paths(folders)
    lengths = [len(_open(path)[1]) for path in paths]
    frames = np.empty((sum(lengths), len(cameras), size, size, 3), np.uint8)
    digest, episodes, position = hashlib.sha256(), [], 0
    for path, length in zip(paths, lengths, strict=True):
        episode = read_episode(path, cameras, chunk, size)
        # At once, so that all frames together are held once.
        frames[position : position + length] = episode.pop('frames')
        position += length
        episodes.append(episode)
        digest.update(path.read_bytes())
    instructions, which = _numbered([e['instruction'] for e in episodes])
    tasks, task_of = _numbered([e['task'] for e in episodes])
    names = auxiliary_names or tuple(
        dict.fromkeys(name for e in episodes for name in e['auxiliary_names'])
    )
    auxiliary, known = zip(*(_columns(e, names) for e in episodes), strict=True)
    return Demonstrations(
        frames=frames,
        proprioception=np.concatenate([e['proprioception'] for e in episodes]),
        chunks=np.concatenate([e['chunks'] for e in episodes]),
        auxiliary=np.concatenate(auxiliary),
        auxiliary_known=np.concatenate(known),
        auxiliary_names=names,
        instruction_index=np.repeat(which, lengths),
        instructions=instructions,
        task_index=np.repeat(task_of, lengths),
        tasks=tasks,
        episodes=len(paths),
        task_episodes=tuple(np.bincount(task_of).tolist()),
        digest=digest.hexdigest(),
    )


def _numbered(texts: list[str]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """The distinct texts in order, and for each text its place among them."""
    distinct = tuple(sorted(set(texts)))
    return distinct, np.array([distinct.index(text) for text in texts], dtype=np.int64)


def _columns(
    episode: dict[str, Any], names: tuple[str, ...]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The auxiliary columns of one episode in the order `names`, and which of them are known."""
    shape = (len(episode['auxiliary']), len(names))
    values, known = np.zeros(shape, np.float32), np.zeros(shape, bool)
    for column, name in enumerate(episode['auxiliary_names']):
        if name in names:
            place = names.index(name)
            values[:, place] = episode['auxiliary'][:, column]
            known[:, place] = episode['auxiliary_known'][:, column]
    return values, known


def dataset_statistics(demonstrations: Demonstrations, key: str) -> dict[str, Any]:
    """dataset_statistics.json as OpenVLA-OFT's trainer writes it."""

    def summary(values: NDArray[np.float32]) -> dict[str, list[float]]:
        flat = values.reshape(-1, values.shape[-1]).astype(np.float64)
        return {
            'mean': flat.mean(0).tolist(),
            'std': flat.std(0).tolist(),
            'max': flat.max(0).tolist(),
            'min': flat.min(0).tolist(),
            'q01': np.quantile(flat, 0.01, axis=0).tolist(),
            'q99': np.quantile(flat, 0.99, axis=0).tolist(),
        }

    action: dict[str, Any] = summary(demonstrations.chunks)
    action['mask'] = [True] * demonstrations.chunks.shape[-1]
    return {
        key: {
            'action': action,
            'proprio': summary(demonstrations.proprioception),
            'num_transitions': len(demonstrations),
            'num_trajectories': demonstrations.episodes,
        }
    }
