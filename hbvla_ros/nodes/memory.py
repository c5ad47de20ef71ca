# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""How much memory this process takes."""

from __future__ import annotations

import os
from pathlib import Path

_MEGABYTE = 1e6


def resident_megabytes() -> float | None:
    """Main memory of this process in MB (10^6 bytes), None where the system does not tell."""
    try:
        pages = int(Path('/proc/self/statm').read_text(encoding='ascii').split()[1])
    except OSError:
        return None
    return pages * os.sysconf('SC_PAGE_SIZE') / _MEGABYTE


def device_megabytes(device: str) -> float | None:
    """Memory of this process' tensors on a GPU in MB, None on the processor."""
    if not device.startswith('cuda'):
        return None
    # Loaded already by whatever put a network there.
    from hbvla_ros.policy import device_memory

    return device_memory(device) / _MEGABYTE
