# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""``hbvla act``: one observation from a file in, one action chunk out."""

from __future__ import annotations

import argparse
import json
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from hbvla_ros.data import ActionChunk, Observation
from hbvla_ros.errors import HbvlaError


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser('act', help='compute one action chunk from one observation')
    parser.add_argument('folder', help='checkpoint folder, full precision or deployed')
    parser.add_argument(
        '--observation',
        required=True,
        metavar='FILE.npz',
        help='one uint8 image per camera name, proprioception, optionally instruction',
    )
    parser.add_argument('--platform', help='aloha, libero, bridge or a platform file')
    parser.add_argument('--instruction', help='the task in words, instead of that in the file')
    parser.add_argument('--base', help='folder of the base model, for a LoRA adapter folder')
    parser.add_argument(
        '--device',
        default='cpu',
        help='where the network runs: cpu (default) in float32, cuda or cuda:0 in bfloat16',
    )
    parser.add_argument('--json', action='store_true', help='print JSON')
    parser.set_defaults(run=run)


def read_observation(path: Path, instruction: str | None) -> Observation:
    """Read an observation file.

    Args:
        path: npz with one uint8 (H, W, 3) array per camera name, ``proprioception`` (P,), and
            optionally ``instruction`` and ``stamp``.
        instruction: takes the place of the file's.

    Raises:
        HbvlaError: no such file, not an npz, or no instruction.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            arrays = dict(content)
    except FileNotFoundError:
        raise HbvlaError(f'{path}: no such observation file') from None
    except (OSError, ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise HbvlaError(f'{path}: not a readable npz file ({error})') from None
    words = str(arrays.pop('instruction', ''))
    if instruction is None and not words:
        raise HbvlaError(f'{path}: has no instruction; give one with --instruction')
    proprioception = arrays.pop('proprioception', np.zeros(0))
    try:
        stamp = float(arrays.pop('stamp', 0.0))
        values = np.asarray(proprioception, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise HbvlaError(f'{path}: stamp and proprioception must be numbers ({error})') from None
    return Observation(arrays, values, words if instruction is None else instruction, stamp)


def run(options: argparse.Namespace) -> int:
    """Load the policy, act once, print the chunk."""
    observation = read_observation(Path(options.observation), options.instruction)

    from hbvla_ros.policy import Policy, dtype_for

    policy = Policy.load(
        options.folder,
        options.platform,
        dtype=dtype_for(options.device),
        device=options.device,
        base=options.base,
    )
    started = time.perf_counter()
    chunk = policy.act(observation)
    seconds = time.perf_counter() - started
    if options.json:
        print(json.dumps(_as_json(chunk, policy.platform.name, seconds)))
    else:
        print(_as_text(chunk, policy.platform.name, seconds))
    return 0


def _as_json(chunk: ActionChunk, platform: str, seconds: float) -> dict[str, Any]:
    return {
        'checkpoint': chunk.checkpoint,
        'platform': platform,
        'instruction': chunk.instruction,
        'start': chunk.start,
        'step': chunk.step,
        'seconds': round(seconds, 6),
        'actions': chunk.actions.tolist(),
    }


def _as_text(chunk: ActionChunk, platform: str, seconds: float) -> str:
    rows, width = chunk.actions.shape
    lines = [
        f'checkpoint   {chunk.checkpoint} ({platform})',
        f'instruction  {chunk.instruction}',
        f'chunk        {rows} rows of {width} values, one every {chunk.step:g} s, '
        f'computed in {seconds * 1000:.0f} ms',
        '',
        '   due s  action',
    ]
    for index, row in enumerate(chunk.actions):
        lines.append(f'{chunk.due(index):8.3f}  ' + ' '.join(f'{value:8.4f}' for value in row))
    return '\n'.join(lines)
