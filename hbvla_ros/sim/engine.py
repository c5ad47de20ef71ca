# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Import of MuJoCo that does not depend on a working graphics library.

With ``MUJOCO_GL`` set, MuJoCo loads that library while it is imported, and the whole simulation
would fail where only pictures are impossible. ``rendering`` makes its own context instead.
"""

from __future__ import annotations

import os

from hbvla_ros.errors import HbvlaError

_asked = os.environ.get('MUJOCO_GL')
os.environ['MUJOCO_GL'] = 'disable'
try:
    import mujoco
except ImportError as error:
    raise HbvlaError(
        'package mujoco cannot be imported: install it with "pip install mujoco gym-aloha"'
    ) from error
finally:
    if _asked is None:
        del os.environ['MUJOCO_GL']
    else:
        os.environ['MUJOCO_GL'] = _asked

__all__ = ['mujoco']
