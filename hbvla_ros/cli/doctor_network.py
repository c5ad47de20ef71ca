# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The checks of ``hbvla doctor`` that concern what the kernel gives to DDS."""

from __future__ import annotations

import shutil
from pathlib import Path

from hbvla_ros.cli.doctor_rows import Row, read_text

_MEBIBYTE = 2**20
_PROC = Path('/proc/sys')
_SHARED_MEMORY = Path('/dev/shm')
_WANTED_SHARED_MEMORY = 64 * _MEBIBYTE


def check_socket_buffers() -> Row:
    """The largest receive buffer and how IP fragments are kept, with the line that mends them."""
    # Raw camera images are about 1 MB each: a receive buffer below a few of them loses fragments.
    # And one lost fragment leaves the rest of its image waiting: with the kernel's 30 s and 4 MiB
    # those fill the store, and then whole images vanish.
    settings = (
        ('net.core.rmem_max', 4 * _MEBIBYTE, 32 * _MEBIBYTE, False),
        ('net.ipv4.ipfrag_high_thresh', 32 * _MEBIBYTE, 128 * _MEBIBYTE, False),
        ('net.ipv4.ipfrag_time', 5, 3, True),
    )
    found, mended = [], []
    for name, bound, advised, is_most in settings:
        text = read_text(_PROC.joinpath(*name.split('.')))
        found.append(f'{name} {text or "unknown"}')
        if text and (int(text) > bound if is_most else int(text) < bound):
            mended.append(f'{name}={advised}')
    return Row(
        'socket buffers',
        'warning' if mended else 'ok',
        ', '.join(found),
        'raw camera images from another machine vanish in small buffers; compressed images, and '
        'all on one machine, do without',
        f'sudo sysctl -w {" ".join(mended)} (and the same in /etc/sysctl.d/60-dds.conf to keep it)'
        if mended
        else 'none',
    )


def check_shared_memory() -> Row:
    """Room for DDS messages between processes of one machine."""
    free = shutil.disk_usage(_SHARED_MEMORY).free if _SHARED_MEMORY.is_dir() else 0
    return Row(
        'shared memory',
        'ok' if free >= _WANTED_SHARED_MEMORY else 'warning',
        f'{free // _MEBIBYTE} MiB of {_SHARED_MEMORY} free',
        'DDS carries messages between processes of one machine in it',
        f'free {_SHARED_MEMORY}, or give a container more: docker run --shm-size=1g',
    )
