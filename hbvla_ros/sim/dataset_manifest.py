# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What a folder of demonstration episodes holds: its files and its manifest."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hbvla_ros.errors import HbvlaError

MANIFEST = 'dataset.json'
# Version 2 added the task's name and the known columns to each episode; readers take both.
FORMAT_VERSION = 2
READABLE_VERSIONS = (1, 2)
CONTROL_RATE = 25.0  # Hz


@dataclass(frozen=True)
class EpisodeResult:
    """Outcome of one seed; ``frames`` is 0 when the episode was not kept.

    Of the expert's own episodes the failed ones are not kept, of a policy's all are.
    """

    seed: int
    success: bool
    frames: int

    @property
    def kept(self) -> bool:
        """Whether there is a file of it."""
        return self.frames > 0


@dataclass
class DatasetManifest:
    """What a folder holds: kept episodes (seed to labelled frames) and discarded seeds.

    ``policy`` is the identity of the checkpoint that drove, '' where the expert did. Manifests that
    were written before there was such a key are of the expert.
    """

    task: str
    cameras: list[str]
    camera_size: int
    control_rate: float
    label_every: int
    chunk: int
    auxiliary_names: list[str]
    episodes: dict[str, int] = field(default_factory=dict)
    failed: list[int] = field(default_factory=list)
    format_version: int = FORMAT_VERSION
    policy: str = ''

    @property
    def frames(self) -> int:
        """Labelled frames in all kept episodes."""
        return sum(self.episodes.values())

    @property
    def success_rate(self) -> float:
        """Share of the attempted seeds that were kept, 0 when none was tried."""
        tried = len(self.episodes) + len(self.failed)
        return len(self.episodes) / tried if tried else 0.0

    def add(self, result: EpisodeResult) -> None:
        """Note one outcome."""
        if result.kept:
            self.episodes[str(result.seed)] = result.frames
        elif result.seed not in self.failed:
            self.failed.append(result.seed)

    def write(self, folder: Path) -> None:
        """Write ``dataset.json``, whole or not at all."""
        temporary = folder / f'.{MANIFEST}.{os.getpid()}'
        content = dict(asdict(self), frames=self.frames, success_rate=self.success_rate)
        temporary.write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')
        temporary.replace(folder / MANIFEST)

    @classmethod
    def read(cls, folder: Path) -> DatasetManifest:
        """Read ``dataset.json``.

        Raises:
            HbvlaError: missing, not JSON, wrong version or wrong keys.
        """
        path = folder / MANIFEST
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding='utf-8'))
            version = content.get('format_version')
            if version not in READABLE_VERSIONS:
                known = ' and '.join(map(str, READABLE_VERSIONS))
                raise HbvlaError(
                    f'{path}: format_version {version!r}, this program reads {known}; '
                    'generate the demonstrations again'
                )
            for derived in ('frames', 'success_rate'):
                content.pop(derived, None)
            return cls(**content)
        except FileNotFoundError as error:
            raise HbvlaError(f'{path}: missing; make it with "hbvla demos --out"') from error
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise HbvlaError(f'{path}: cannot read: {error}') from error


def episode_path(folder: Path, seed: int) -> Path:
    """Where the episode of a seed lies."""
    return folder / f'episode_{seed}.npz'
