# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The checks of ``hbvla doctor`` that concern ROS 2."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hbvla_ros.cli.doctor_rows import Row, probe

_INSTALL = "source a ROS 2 installation, or pip install --editable '.[ros]'"

# Major version of rclpy to the ROS 2 distribution that ships it.
_DISTRIBUTIONS = {'3': 'humble', '7': 'jazzy'}

_MESSAGES = {
    'sensor_msgs.msg': 'JointState',
    'trajectory_msgs.msg': 'JointTrajectory',
    'diagnostic_msgs.msg': 'DiagnosticArray',
    'std_msgs.msg': 'String',
    'std_srvs.srv': 'Trigger',
    'lifecycle_msgs.srv': 'ChangeState',
    'rosgraph_msgs.msg': 'Clock',
}


def check_ros() -> Row:
    """The rclpy in use: a node is created with it, so that a broken middleware shows."""
    code = (
        'import json, rclpy\n'
        'from importlib.metadata import version, PackageNotFoundError\n'
        'def number(name):\n'
        '    try:\n'
        '        return version(name)\n'
        '    except PackageNotFoundError:\n'
        '        return ""\n'
        'rclpy.init()\n'
        'node = rclpy.create_node("hbvla_doctor")\n'
        'node.destroy_node()\n'
        'found = {"file": rclpy.__file__, "wheel": number("ros-rclpy"),\n'
        '         "version": number("rclpy"), "rmw": rclpy.get_rmw_implementation_identifier()}\n'
        'rclpy.shutdown()\n'
        'print(json.dumps(found))'
    )
    found, error = probe(code)
    if not found:
        return Row('ROS 2', 'missing', error, 'the nodes run on rclpy', _INSTALL, required=True)
    version = found['wheel'] or found['version']
    distribution = os.environ.get('ROS_DISTRO') or _DISTRIBUTIONS.get(version.split('.')[0], '')
    origin = _origin(Path(found['file']), bool(found['wheel']))
    domain = os.environ.get('ROS_DOMAIN_ID', '0')
    return Row(
        'ROS 2',
        'ok',
        f'{distribution or "unknown distribution"}, rclpy {version} from {origin}, '
        f'{found["rmw"]}, domain {domain}',
        'the nodes run on rclpy',
        _INSTALL,
        required=True,
    )


def _origin(file: Path, wheel: bool) -> str:
    """Where rclpy comes from, in words."""
    if wheel and Path(sys.prefix) in file.parents:
        return 'PyPI wheels'
    for prefix in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep):
        if prefix and Path(prefix) in file.parents:
            return prefix
    return str(file.parent)


def check_messages() -> Row:
    """Every message package on the wire, by importing one type of each."""
    code = (
        'import importlib, json\n'
        f'for module, name in {_MESSAGES!r}.items():\n'
        '    getattr(importlib.import_module(module), name)\n'
        'print(json.dumps({"works": True}))'
    )
    found, error = probe(code)
    packages = ', '.join(sorted({module.split('.')[0] for module in _MESSAGES}))
    return Row(
        'messages',
        'ok' if found else 'missing',
        packages if found else error,
        'only standard messages are on the wire',
        _INSTALL,
        required=True,
    )


def check_cv_bridge() -> Row:
    """Converts one image: the binary part breaks with an unfitting numpy or OpenCV."""
    code = (
        'import json, numpy, cv2\n'
        'from cv_bridge import CvBridge\n'
        'picture = numpy.arange(48, dtype=numpy.uint8).reshape(4, 4, 3)\n'
        'message = CvBridge().cv2_to_imgmsg(picture, "rgb8")\n'
        'assert (CvBridge().imgmsg_to_cv2(message, "rgb8") == picture).all()\n'
        'print(json.dumps({"opencv": cv2.__version__}))'
    )
    found, error = probe(code)
    return Row(
        'cv_bridge',
        'ok' if found else 'missing',
        f'converts, OpenCV {found["opencv"]}' if found else error,
        'camera images are decoded with it',
        "pip install cv_bridge 'numpy<2.3' 'opencv-python-headless<5', or a ROS 2 installation",
        required=True,
    )
