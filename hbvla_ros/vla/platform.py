# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The platform constants: everything about a policy that its weights do not say.

An OpenVLA-OFT folder stores neither its cameras nor its chunk length nor the conventions of its
robot, so they are explicit configuration here and never guessed.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hbvla_ros.errors import HbvlaError

_NORMALISATIONS = ('bounds', 'bounds_q99')
_GRIPPERS = ('continuous', 'libero')


@dataclass(frozen=True)
class Platform:
    """Robot, cameras, chunk and conventions a checkpoint was trained for.

    Attributes:
        name: name of this set of constants.
        robot: tag of the robot whose joint and gripper conventions the actions follow.
        cameras: camera names; their order is the channel order of the network's input.
        chunk: rows K of an action chunk.
        action_dim: values A of one row.
        proprio_dim: values P of the proprioception; 0 means the network takes no proprio token.
        step: seconds between two rows of a chunk.
        normalisation: ``bounds`` (min and max) or ``bounds_q99`` (1st and 99th percentile).
        statistics_key: key into dataset_statistics.json; None stands for its only key.
        action_slots_per_step: language-model slots for one row; None stands for ``action_dim``.
        resize: (height, width) of a bicubic resize before the policy's own, or None.
        rotate_180: whether camera images are turned by 180 degrees first.
        jpeg_round_trip: whether the policy resize goes through one JPEG encoding and decoding.
        center_crop: whether the central 0.9 of the area is cropped out.
        gripper: ``continuous``, or ``libero`` (sign of the last value, flipped).
        diffusion_steps_train: steps of the diffusion schedule the noise predictor was trained on.
        diffusion_steps_inference: DDIM steps of one inference.
    """

    name: str
    robot: str
    cameras: tuple[str, ...]
    chunk: int
    action_dim: int
    proprio_dim: int
    step: float
    normalisation: str
    statistics_key: str | None = None
    action_slots_per_step: int | None = None
    resize: tuple[int, int] | None = None
    rotate_180: bool = False
    jpeg_round_trip: bool = True
    center_crop: bool = True
    gripper: str = 'continuous'
    diffusion_steps_train: int = 50
    diffusion_steps_inference: int = 50

    def __post_init__(self) -> None:
        """Raise HbvlaError if a value is out of range."""
        for key in ('chunk', 'action_dim', 'diffusion_steps_train', 'diffusion_steps_inference'):
            _require(_is_count(getattr(self, key), 1), key, 'a whole number of at least 1')
        _require(_is_count(self.proprio_dim, 0), 'proprio_dim', 'a whole number of at least 0')
        slots = self.action_slots_per_step
        _require(
            slots is None or _is_count(slots, 1), 'action_slots_per_step', 'at least 1 or null'
        )
        _require(
            self.diffusion_steps_inference <= self.diffusion_steps_train,
            'diffusion_steps_inference',
            'at most diffusion_steps_train',
        )
        _require(_is_real(self.step) and self.step > 0, 'step', 'a positive number of seconds')
        _require(
            self.normalisation in _NORMALISATIONS, 'normalisation', ' or '.join(_NORMALISATIONS)
        )
        _require(self.gripper in _GRIPPERS, 'gripper', ' or '.join(_GRIPPERS))
        _require(
            len(self.cameras) > 0
            and len(set(self.cameras)) == len(self.cameras)
            and all(isinstance(camera, str) and camera for camera in self.cameras),
            'cameras',
            'a list of different names',
        )
        _require(
            self.resize is None
            or (len(self.resize) == 2 and all(_is_count(side, 1) for side in self.resize)),
            'resize',
            '[height, width] or null',
        )
        for key in ('rotate_180', 'jpeg_round_trip', 'center_crop'):
            _require(isinstance(getattr(self, key), bool), key, 'true or false')
        for key in ('name', 'robot'):
            value = getattr(self, key)
            _require(isinstance(value, str) and bool(value), key, 'a non-empty text')
        _require(
            self.statistics_key is None or isinstance(self.statistics_key, str),
            'statistics_key',
            'a text or null',
        )

    @property
    def slots_per_step(self) -> int:
        """Language-model slots for one row of the chunk."""
        return self.action_slots_per_step or self.action_dim

    @property
    def action_slots(self) -> int:
        """Language-model slots for the whole chunk."""
        return self.chunk * self.slots_per_step

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file; :meth:`from_json` reads them back."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_json(cls, values: Mapping[str, Any], source: str = 'platform') -> Platform:
        """Build from plain values; unknown or missing keys raise HbvlaError naming them."""
        fields = {field.name: field for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - set(fields))
        if unknown:
            raise HbvlaError(
                f'{source}: unknown key {unknown[0]!r}; the keys are {", ".join(fields)}'
            )
        missing = [
            name
            for name, field in fields.items()
            if field.default is dataclasses.MISSING and name not in values
        ]
        if missing:
            raise HbvlaError(f'{source}: missing key {missing[0]!r}; add it')
        arguments = dict(values)
        for key in ('cameras', 'resize'):
            value = arguments.get(key)
            if value is not None and not isinstance(value, (list, tuple)):
                raise HbvlaError(f'{source}: {key} must be a list, got {value!r}')
            arguments[key] = tuple(value) if value is not None else None
        if arguments['cameras'] is None:
            raise HbvlaError(f'{source}: cameras must be a list of different names, got null')
        try:
            return cls(**arguments)
        except HbvlaError as error:
            raise HbvlaError(f'{source}: {error}') from None

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Platform:
        """Read a platform.json; raises HbvlaError naming the file and the wrong key."""
        path = Path(path)
        try:
            values = json.loads(path.read_text(encoding='utf-8'))
        except FileNotFoundError:
            raise HbvlaError(f'{path}: no such platform file') from None
        except (OSError, ValueError) as error:
            raise HbvlaError(f'{path}: not a readable platform file ({error})') from None
        if not isinstance(values, dict):
            raise HbvlaError(f'{path}: a platform file holds one JSON object')
        return cls.from_json(values, str(path))

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write a platform.json, under a temporary name first."""
        path = Path(path)
        temporary = path.with_name(path.name + '.tmp')
        temporary.write_text(json.dumps(self.to_json(), indent=2) + '\n', encoding='utf-8')
        os.replace(temporary, path)


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_real(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _require(condition: bool, key: str, wanted: str) -> None:
    if not condition:
        raise HbvlaError(f'{key} must be {wanted}')


ALOHA = Platform(
    name='aloha',
    robot='aloha',
    cameras=('cam_high', 'cam_left_wrist', 'cam_right_wrist'),
    chunk=25,
    action_dim=14,
    proprio_dim=14,
    step=0.04,
    normalisation='bounds',
    resize=(256, 256),
)
LIBERO = Platform(
    name='libero',
    robot='libero',
    cameras=('agentview_image', 'robot0_eye_in_hand_image'),
    chunk=8,
    action_dim=7,
    proprio_dim=8,
    step=0.05,
    normalisation='bounds_q99',
    rotate_180=True,
    gripper='libero',
)
BRIDGE = Platform(
    name='bridge',
    robot='bridge',
    cameras=('image_0',),
    chunk=5,
    action_dim=7,
    proprio_dim=7,
    step=0.2,
    normalisation='bounds_q99',
)
PLATFORMS: Mapping[str, Platform] = {
    platform.name: platform for platform in (ALOHA, LIBERO, BRIDGE)
}


def resolve_platform(
    folder: str | os.PathLike[str], choice: str | os.PathLike[str] | None = None
) -> Platform:
    """Platform of a checkpoint folder: the one chosen by name or file, else its platform.json.

    Args:
        folder: checkpoint folder.
        choice: a name of :data:`PLATFORMS`, the path of a platform file, or None.

    Raises:
        HbvlaError: no such folder, neither a choice nor a platform.json, or an unknown choice.
    """
    if choice is None:
        own = Path(folder) / 'platform.json'
        if own.is_file():
            return Platform.read(own)
        if not Path(folder).is_dir():
            raise HbvlaError(f'{folder}: no such checkpoint folder')
        raise HbvlaError(
            f'{folder}: no platform.json; name the platform ({", ".join(PLATFORMS)}) or a file'
        )
    if str(choice) in PLATFORMS:
        return PLATFORMS[str(choice)]
    if Path(choice).is_file():
        return Platform.read(choice)
    raise HbvlaError(
        f'unknown platform {str(choice)!r}: neither one of {", ".join(PLATFORMS)} nor a file'
    )
