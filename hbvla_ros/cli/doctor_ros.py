# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The checks of ``hbvla doctor`` that concern the ROS 2 installation.

A machine without ROS 2 quantizes and evaluates all the same, so that is a warning; a ROS 2 that is
there and does not work is a fault.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hbvla_ros.cli.doctor_rows import Row, probe, ros_is_there

_INSTALL = "source a ROS 2 installation, or pip install --editable '.[ros]'"
_ABSENT = 'not looked at: ROS 2 is not installed'

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
    why = 'the nodes run on rclpy'
    if not ros_is_there():
        return Row(
            'ROS 2',
            'warning',
            'not installed for this interpreter; quantizing, evaluation in process and benchmarks '
            'work, nodes do not',
            why,
            _INSTALL,
        )
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
        asked = os.environ.get('RMW_IMPLEMENTATION')
        fix = f'{_INSTALL}; or unset RMW_IMPLEMENTATION={asked}' if asked else _INSTALL
        return Row('ROS 2', 'fault', error, why, fix)
    version = found['wheel'] or found['version']
    named = os.environ.get('ROS_DISTRO', '')
    shipped = _DISTRIBUTIONS.get(version.split('.')[0], '')
    distribution = named or shipped
    problem, fix = _distribution_problem(named, shipped)
    origin = _origin(Path(found['file']), bool(found['wheel']))
    domain = os.environ.get('ROS_DOMAIN_ID', '0')
    return Row(
        'ROS 2',
        'warning' if problem else 'ok',
        f'{distribution or "unknown distribution"}, rclpy {version} from {origin}, '
        f'{found["rmw"]}, domain {domain}{problem}',
        why,
        fix or 'none',
    )


def _distribution_problem(named: str, shipped: str) -> tuple[str, str]:
    """What is odd about the distribution and what to do, empty where nothing is.

    Args:
        named: what ROS_DISTRO says.
        shipped: the distribution whose rclpy is in use, empty if none that is known.
    """
    if shipped and named and named != shipped:
        return (
            f'; ROS_DISTRO says {named}, this rclpy is from {shipped}',
            'open a new shell and source one ROS 2 installation only',
        )
    if (named or shipped) not in _DISTRIBUTIONS.values():
        return (
            '; tried with jazzy, written for humble and jazzy',
            'use ROS 2 Humble or Jazzy, or run the tests of this package here first',
        )
    return '', ''


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
    why = 'only standard messages are on the wire'
    if not ros_is_there():
        return Row('messages', 'warning', _ABSENT, why, _INSTALL)
    code = (
        'import importlib, json\n'
        f'for module, name in {_MESSAGES!r}.items():\n'
        '    getattr(importlib.import_module(module), name)\n'
        'print(json.dumps({"works": True}))'
    )
    found, error = probe(code)
    packages = ', '.join(sorted({module.split('.')[0] for module in _MESSAGES}))
    return Row('messages', 'ok' if found else 'fault', packages if found else error, why, _INSTALL)


def check_cv_bridge() -> Row:
    """Converts one image: the binary part breaks with an unfitting numpy or OpenCV."""
    why = 'camera images are decoded with it'
    fix = "pip install cv_bridge 'numpy<2.3' 'opencv-python-headless<5', or a ROS 2 installation"
    if not ros_is_there():
        return Row('cv_bridge', 'warning', _ABSENT, why, _INSTALL)
    code = (
        'import json, numpy, cv2\n'
        'from cv_bridge import CvBridge\n'
        'picture = numpy.arange(48, dtype=numpy.uint8).reshape(4, 4, 3)\n'
        'message = CvBridge().cv2_to_imgmsg(picture, "rgb8")\n'
        'assert (CvBridge().imgmsg_to_cv2(message, "rgb8") == picture).all()\n'
        'print(json.dumps({"opencv": cv2.__version__}))'
    )
    found, error = probe(code)
    text = f'converts, OpenCV {found["opencv"]}' if found else error
    return Row('cv_bridge', 'ok' if found else 'fault', text, why, fix)
