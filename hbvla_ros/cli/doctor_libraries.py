# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The checks of ``hbvla doctor`` that concern Python libraries and the simulator."""

from __future__ import annotations

import importlib.util

from hbvla_ros.cli.doctor_rows import Row, probe


def check_numpy() -> Row:
    """Whether numpy is a version that the binary message and image packages accept."""
    found, error = probe('import numpy, json; print(json.dumps({"version": numpy.__version__}))')
    version = found.get('version', '')
    numbers = tuple(int(part) for part in version.split('.')[:2]) if version else ()
    fits = (1, 21) <= numbers < (2, 3) if numbers else False
    state = 'ok' if fits else ('warning' if numbers else 'fault')
    return Row(
        'numpy',
        state,
        version or error,
        'everything computes with it; cv_bridge and the ROS 2 messages fit 1.21 to 2.2',
        "pip install 'numpy>=1.21,<2.3'",
    )


def check_libraries() -> Row:
    """The small libraries that read checkpoints, text, images and recordings."""
    names = ['safetensors', 'tokenizers', 'PIL', 'simplejpeg', 'yaml', 'jinja2', 'matplotlib',
             'h5py', 'rosbags.highlevel']  # fmt: skip
    code = (
        'import importlib, json\n'
        f'names = {names!r}\n'
        'modules = [importlib.import_module(name) for name in names]\n'
        'print(json.dumps({n: getattr(m, "__version__", "?") for n, m in zip(names, modules)}))'
    )
    found, error = probe(code)
    versions = ', '.join(f'{name} {version}' for name, version in found.items() if version != '?')
    return Row(
        'libraries',
        'ok' if found else 'fault',
        versions if found else error,
        'checkpoints, prompts, images, recordings, profiles and reports need them',
        'pip install --editable .',
    )


def check_simulator() -> Row:
    """MuJoCo with the arm models."""
    code = (
        'import json, mujoco\n'
        'from importlib.metadata import version\n'
        'from importlib.util import find_spec\n'
        'assert find_spec("gym_aloha"), "gym_aloha is not installed"\n'
        'print(json.dumps({"mujoco": mujoco.__version__, "gym-aloha": version("gym-aloha")}))'
    )
    found, error = probe(code)
    return Row(
        'simulator',
        'ok' if found else 'warning',
        ', '.join(f'{name} {version}' for name, version in found.items()) or error,
        'the simulated robot, `hbvla demo`, `hbvla eval` and `hbvla demos` run in it',
        "pip install --editable '.[sim]'",
    )


def check_renderer() -> Row:
    """Which off-screen renderer draws the cameras."""
    code = (
        'import json, mujoco\n'
        'text = "<mujoco><worldbody><light/><geom size=\'1\'/></worldbody></mujoco>"\n'
        'model = mujoco.MjModel.from_xml_string(text)\n'
        'data = mujoco.MjData(model)\n'
        'mujoco.mj_forward(model, data)\n'
        'renderer = mujoco.Renderer(model, 32, 32)\n'
        'renderer.update_scene(data)\n'
        'assert renderer.render().any(), "the picture is black"\n'
        'print(json.dumps({"works": True}))'
    )
    installed = importlib.util.find_spec('mujoco') is not None
    results = {}
    if installed:
        for backend in ('egl', 'osmesa'):
            found, error = probe(code, {'MUJOCO_GL': backend, 'PYOPENGL_PLATFORM': backend})
            results[backend] = 'works' if found else error
    working = [name for name, result in results.items() if result == 'works']
    works = bool(working)
    text = ', '.join(working or [f'{name}: {result}' for name, result in results.items()])
    return Row(
        'renderer',
        # A robot needs no simulator; but one that is installed has to be able to draw.
        'ok' if works else 'fault' if installed else 'warning',
        text or 'MuJoCo is not installed',
        'the cameras of the simulated robot are drawn off-screen',
        'apt-get install libegl1 libgl1-mesa-dri, or libosmesa6',
    )


def check_video() -> Row:
    """Whether the report's video can be encoded."""
    code = (
        'import json, imageio_ffmpeg\n'
        'print(json.dumps({"version": imageio_ffmpeg.get_ffmpeg_version()}))'
    )
    found, error = probe(code)
    return Row(
        'video',
        'ok' if found else 'warning',
        f'ffmpeg {found["version"]}' if found else error,
        'the report of `hbvla demo` shows a short video',
        "pip install 'imageio[ffmpeg]'",
    )
