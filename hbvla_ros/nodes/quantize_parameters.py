# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Parameters of the quantize node: those of ``hbvla quantize``, and how it reports."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hbvla_ros.errors import HbvlaError
from hbvla_ros.nodes.parameters import Parameter
from hbvla_ros.quantizing import Job

# The smallest and largest whole number a parameter can be; seeds are of that type as well.
_MOST = 2**31 - 1

JOB_TABLE = (
    Parameter('checkpoint', '', 'Full-precision checkpoint folder.'),
    Parameter('out', '', 'Folder to write.'),
    Parameter('method', 'signplane', 'Quantization method, see hbvla quantize --help.'),
    Parameter(
        'bits',
        0.0,
        'Sign planes (1, 2, 3) or budget of stored bits per weight; 0 is what the method stores '
        'by itself.',
        low=0.0,
        high=16.0,
    ),
    Parameter('preset', 'default', 'Preset of the method, such as parity or best for hbvla.'),
    Parameter('settings', '', 'Options of the method as NAME=VALUE, separated by blanks.'),
    Parameter('platform', '', 'Platform name or .json, where the folder has none.'),
    Parameter('base', '', 'Base model folder, for a LoRA adapter folder.'),
    Parameter(
        'calibration',
        '',
        'Recorded episodes: simulator, ALOHA HDF5 or bags; several places with colons between '
        'them; empty for none.',
    ),
    Parameter('robot', '', 'Robot profile that names the topics of bags.'),
    Parameter('instruction', '', 'Task in words, for recordings that do not say theirs.'),
    Parameter('frames', 128, 'Calibration frames drawn.', low=1, high=_MOST),
    Parameter('held_out', 16, 'Further frames for the action error.', low=0, high=_MOST),
    Parameter(
        'probe',
        'action',
        'Token importance: action gradient, block gradient, the same as in the paper, or none.',
        choices=('action', 'block', 'parity', 'none'),
    ),
    Parameter('probe_settings', '', 'Options of the probe as NAME=VALUE, separated by blanks.'),
    Parameter(
        'components',
        'vision,language',
        'What is quantized: vision, language, projector, head; separated by commas.',
    ),
    Parameter('device', 'cpu', 'Where it computes: cpu, cuda or cuda:0.'),
    Parameter(
        'dtype',
        'float32',
        'Type of the forward passes; Hessians are float32 always.',
        choices=('float32', 'bfloat16'),
    ),
    Parameter('refine', 0, 'Steps of the refinement after quantization.', low=0, high=_MOST),
    Parameter(
        'refine_frames',
        0,
        'Frames that the refinement draws from; 0 for the calibration frames alone.',
        low=0,
        high=_MOST,
    ),
    Parameter('refine_signs', False, 'Whether the refinement trains the signs as well.'),
    Parameter(
        'cache_memory',
        0.0,
        'Activations between two blocks that stay in memory, GB; 0 for a quarter of what is free.',
        low=0.0,
        high=1000.0,
    ),
    Parameter('seed', 0, 'Seed of everything random.', low=0, high=_MOST),
    Parameter('force', False, 'Replace a deployed folder that is already there.'),
    Parameter('resume', False, 'Go on after the last finished layer of an interrupted run.'),
)
TABLE = (
    *JOB_TABLE,
    Parameter('autostart', True, 'Begin at once; false waits for ~/start.'),
    Parameter(
        'diagnostics_rate', 1.0, 'Reports on /diagnostics per second, Hz.', low=0.1, high=10.0
    ),
)


def job_from(values: Mapping[str, Any]) -> Job:
    """The job that parameter values ask for.

    Args:
        values: by name, as :func:`hbvla_ros.nodes.parameters.read` gives them.

    Raises:
        HbvlaError: checkpoint or out is empty.
    """
    for name in ('checkpoint', 'out'):
        if not values[name]:
            raise HbvlaError(f'parameter {name} is empty; set it to a folder')
    return Job(
        checkpoint=Path(values['checkpoint']),
        out=Path(values['out']),
        method=values['method'],
        bits=values['bits'] or None,
        preset=values['preset'],
        settings=tuple(values['settings'].split()),
        platform=values['platform'] or None,
        base=Path(values['base']) if values['base'] else None,
        calibration=tuple(Path(one) for one in values['calibration'].split(':') if one),
        robot=values['robot'] or None,
        instruction=values['instruction'] or None,
        frames=values['frames'],
        held_out=values['held_out'],
        probe=values['probe'],
        probe_settings=tuple(values['probe_settings'].split()),
        components=tuple(part.strip() for part in values['components'].split(',')),
        device=values['device'],
        dtype=values['dtype'],
        refine=values['refine'],
        refine_frames=values['refine_frames'] or None,
        refine_signs=values['refine_signs'],
        seed=values['seed'],
        force=values['force'],
        resume=values['resume'],
        cache_bytes=round(1e9 * values['cache_memory']) or None,
    )
