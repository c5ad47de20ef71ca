# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Headless rendering: picks a backend that works and draws with everything slow switched off."""

from __future__ import annotations

import atexit
import importlib
import os
import subprocess
import sys
import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.errors import HbvlaError
from hbvla_ros.sim.engine import mujoco

BACKENDS = ('egl', 'osmesa')
_PROBE = (
    'import sys, importlib, mujoco\n'
    'context = importlib.import_module("mujoco." + sys.argv[1]).GLContext(16, 16)\n'
    'context.make_current()\n'
    'model = mujoco.MjModel.from_xml_string("<mujoco/>")\n'
    'mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)\n'
)
_PROBE_SECONDS = 120
_SLOW_FLAGS = (
    mujoco.mjtRndFlag.mjRND_SHADOW,
    mujoco.mjtRndFlag.mjRND_REFLECTION,
    mujoco.mjtRndFlag.mjRND_SKYBOX,
    mujoco.mjtRndFlag.mjRND_HAZE,
    mujoco.mjtRndFlag.mjRND_FOG,
)
_chosen: list[str] = []
_open: weakref.WeakSet[SceneRenderer] = weakref.WeakSet()


def backend_works(name: str) -> bool:
    """Try a backend in a process of its own, because a broken driver may end the process."""
    environment = dict(os.environ, MUJOCO_GL=name, PYOPENGL_PLATFORM=name)
    try:
        outcome = subprocess.run(
            [sys.executable, '-c', _PROBE, name], env=environment, timeout=_PROBE_SECONDS,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return False
    return outcome.returncode == 0


def choose_backend() -> str:
    """Name of the rendering backend: EGL, else OSMesa.

    ``MUJOCO_GL`` set to one of them restricts the choice to it. The answer is kept in the
    environment, so that child processes need not look again.

    Raises:
        HbvlaError: neither works; the line names the Debian packages.
    """
    if _chosen:
        return _chosen[0]
    asked = os.environ.get('MUJOCO_GL', '').strip().lower()
    if asked and asked == os.environ.get('HBVLA_GL_CHECKED') and asked in BACKENDS:
        _chosen.append(asked)
        return asked
    for name in (asked,) if asked in BACKENDS else BACKENDS:
        if backend_works(name):
            os.environ['MUJOCO_GL'] = os.environ['HBVLA_GL_CHECKED'] = name
            _chosen.append(name)
            return name
    tried = asked if asked in BACKENDS else ' and '.join(BACKENDS)
    raise HbvlaError(
        f'no rendering backend works (tried {tried}): install the Debian packages '
        'libegl1 libgl1-mesa-dri (EGL) or libosmesa6 (OSMesa)'
    )


def _graphics_context(name: str, width: int, height: int) -> Any:
    # Set before PyOpenGL is imported for the first time: it binds its platform then.
    os.environ['PYOPENGL_PLATFORM'] = name
    try:
        return importlib.import_module(f'mujoco.{name}').GLContext(width, height)
    except Exception as error:
        raise HbvlaError(
            f'rendering backend {name} failed: {error}; set MUJOCO_GL to egl or osmesa before '
            'the program starts'
        ) from error


def _close_all() -> None:
    for renderer in list(_open):
        renderer.close()


class SceneRenderer:
    """Draws cameras of one model; belongs to the thread that made it.

    Raises:
        HbvlaError: no rendering backend.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        """Make a graphics context for ``model``."""
        self._model = model
        width, height = int(model.vis.global_.offwidth), int(model.vis.global_.offheight)
        self._limit = (height, width)
        self._context = _graphics_context(choose_backend(), width, height)
        self._context.make_current()
        self._scene = mujoco.MjvScene(model, maxgeom=400)
        for flag in _SLOW_FLAGS:
            self._scene.flags[flag] = 0
        self._option = mujoco.MjvOption()
        # Collision shapes are in group 3, out of sight.
        self._option.geomgroup[3:] = 0
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._drawing = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._drawing)
        if not _open:
            # The graphics library has its own exit function by now, so ours runs before it.
            atexit.unregister(_close_all)
            atexit.register(_close_all)
        _open.add(self)

    def render(
        self, data: mujoco.MjData, camera: str, height: int, width: int
    ) -> NDArray[np.uint8]:
        """One image, (height, width, 3) RGB.

        Raises:
            HbvlaError: unknown camera, or an image larger than the buffer.
        """
        identifier = mujoco.mj_name2id(self._model, mujoco.mjtObj.mjOBJ_CAMERA, camera)
        if identifier < 0:
            raise HbvlaError(f'camera {camera!r}: not in the scene')
        if not (0 < height <= self._limit[0] and 0 < width <= self._limit[1]):
            raise HbvlaError(
                f'image size {height}x{width}: must be 1 to {self._limit[0]}x{self._limit[1]}'
            )
        self._context.make_current()
        self._camera.fixedcamid = identifier
        mujoco.mjv_updateScene(
            self._model, data, self._option, None, self._camera,
            mujoco.mjtCatBit.mjCAT_ALL, self._scene,
        )  # fmt: skip
        viewport = mujoco.MjrRect(0, 0, width, height)
        image = np.empty((height, width, 3), dtype=np.uint8)
        mujoco.mjr_render(viewport, self._scene, self._drawing)
        mujoco.mjr_readPixels(image, None, viewport, self._drawing)
        return np.ascontiguousarray(image[::-1])

    def close(self) -> None:
        """Free the graphics memory; further calls of ``render`` are an error."""
        if self in _open:
            _open.discard(self)
            self._context.make_current()
            self._drawing.free()
            self._context.free()
