# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The checks of ``hbvla doctor`` that concern PyTorch, CUDA and Triton, and whether they fit."""

from __future__ import annotations

import re
import shutil
from typing import Any

from hbvla_ros.cli.doctor_rows import Row, probe

# From this compute capability on a GPU computes in bfloat16.
_LEAST_CAPABILITY = (8, 0)
_PROBE = """
import json, torch
from importlib.metadata import PackageNotFoundError, requires, version
found = {'version': torch.__version__, 'cuda': torch.version.cuda, 'gpus': [], 'reason': '',
         'builds': torch.cuda.get_arch_list() if torch.cuda.is_available() else [],
         'works': float(torch.ones(2).sum())}
try:
    for index in range(torch.cuda.device_count()):
        torch.zeros(1, device=index)
        free, total = torch.cuda.mem_get_info(index)
        found['gpus'].append({'name': torch.cuda.get_device_name(index), 'free': free,
                              'total': total,
                              'capability': torch.cuda.get_device_capability(index)})
    if torch.version.cuda and not found['gpus']:
        torch.zeros(1, device='cuda')
except Exception as error:
    found['reason'] = (str(error).strip() or repr(error)).splitlines()[0]
try:
    found['triton'] = version('triton')
except PackageNotFoundError:
    found['triton'] = ''
try:
    from packaging.requirements import Requirement
    wanted = [Requirement(text) for text in requires('torch') or []]
    wanted = [w for w in wanted
              if w.name == 'triton' and (w.marker is None or w.marker.evaluate({'extra': ''}))]
    found['triton_wanted'] = str(wanted[0].specifier) if wanted else ''
    found['triton_fits'] = not wanted or wanted[0].specifier.contains(found['triton'] or '0',
                                                                     prereleases=True)
except (ImportError, PackageNotFoundError):
    found['triton_wanted'], found['triton_fits'] = '', True
print(json.dumps(found))
"""


def probe_torch() -> tuple[dict[str, Any], str]:
    """What torch says of itself, its GPUs (bytes free and in all) and Triton.

    Returns:
        The facts and an empty string, or nothing and the error.
    """
    return probe(_PROBE)


def check_torch() -> Row:
    """PyTorch, CUDA, and whether the build fits the GPU and its driver."""
    return torch_row(*probe_torch(), driver=shutil.which('nvidia-smi') is not None)


def torch_row(found: dict[str, Any], error: str, driver: bool) -> Row:
    """The finding on torch.

    Args:
        found: as :func:`probe_torch` gives it.
        error: the same.
        driver: whether this machine has an NVIDIA driver.
    """
    why = 'the network runs on it; 7 B policies need a GPU, the shipped small one does not'
    if not found:
        return Row('torch', 'fault', error, why, 'pip install torch')
    name = f'{found["version"]}, CUDA {found["cuda"] or "none"}'
    gpus = ', '.join(f'{gpu["name"]} (sm_{_number(gpu)})' for gpu in found['gpus'])
    problem, fix = _misfit(found, driver)
    text = f'{name}: {gpus or "CPU only"}' + (f'; {problem}' if problem else '')
    return Row('torch', 'warning' if problem else 'ok', text, why, fix or 'none')


def _misfit(found: dict[str, Any], driver: bool) -> tuple[str, str]:
    """What about torch and the GPU does not fit, and what to do; empty where all fits."""
    if found['reason'] and (driver or found['gpus']):
        return (
            f'CUDA cannot be used ({found["reason"]})',
            'update the NVIDIA driver, or install the build of torch for its CUDA version',
        )
    if driver and not found['gpus']:
        return (
            'this machine has an NVIDIA driver that this build of torch does not use',
            'install the build of torch for the GPU of this machine: pytorch.org/get-started',
        )
    for gpu in found['gpus']:
        if not _is_built_for(tuple(gpu['capability']), found['builds']):
            return (
                f'{gpu["name"]} is sm_{_number(gpu)}, this build is for '
                f'{", ".join(found["builds"])}',
                f'install a build of torch with sm_{_number(gpu)}: pytorch.org/get-started',
            )
        if tuple(gpu['capability']) < _LEAST_CAPABILITY:
            return (
                f'{gpu["name"]} is older than sm_80 and has no bfloat16',
                'use a GPU from sm_80 on, or device:=cpu',
            )
    return '', ''


def _number(gpu: dict[str, Any]) -> str:
    return ''.join(str(part) for part in gpu['capability'])


def _is_built_for(capability: tuple[int, ...], builds: list[str]) -> bool:
    """Whether code for ``builds`` (sm_80, compute_90, ...) runs on a GPU.

    Machine code runs from its own minor version on within its major one, compute_ code on all
    that came later.
    """
    for build in builds:
        match = re.fullmatch(r'(sm|compute)_(\d+)(\d)[a-z]?', build)
        if match is None:
            continue
        made = (int(match[2]), int(match[3]))
        if made <= capability and (match[1] == 'compute' or made[0] == capability[0]):
            return True
    return not builds


def check_kernels() -> Row:
    """Which code multiplies with packed sign planes, and whether Triton is the one torch wants."""
    return kernels_row(probe_torch()[0])


def kernels_row(found: dict[str, Any]) -> Row:
    """The finding on kernels, from what :func:`probe_torch` gives."""
    triton, wanted = found.get('triton', ''), found.get('triton_wanted', '')
    fits = found.get('triton_fits', True)
    text = 'torch reference' + (
        f'; Triton {triton} is installed and not used yet' if triton else ', no Triton'
    )
    if not fits:
        text += f'; this torch wants Triton {wanted.removeprefix("==")}'
    return Row(
        'kernels',
        'ok' if fits else 'warning',
        text,
        'packed layers are multiplied with the reference on every device; torch.compile needs the '
        'Triton it was built with',
        f'pip install triton{wanted}' if not fits else 'none',
    )
