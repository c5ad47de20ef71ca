# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""``hbvla record-fixture``: write a small synthetic bag."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from hbvla_ros.errors import HbvlaError


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        'record-fixture',
        help='write a small synthetic bag of a robot',
        description='Write a rosbag2 bag (MCAP) with cameras, joint states, commands and '
        'instruction of a robot profile. Nothing is simulated: joints swing, squares move. '
        'The same options give the same bytes.',
    )
    parser.add_argument('--out', type=Path, required=True, metavar='BAG', help='folder to be made')
    parser.add_argument(
        '--robot', default='aloha_sim', metavar='PROFILE',
        help='robot profile, a name or a file (default: %(default)s)',
    )  # fmt: skip
    parser.add_argument(
        '--seconds', type=float, default=3.0, metavar='T', help='length (default: %(default)s)'
    )
    parser.add_argument(
        '--seed', type=int, default=0, metavar='S', help='of motion and pictures (default: 0)'
    )
    parser.add_argument(
        '--camera-size', default='64x48', metavar='WxH', help='pixels (default: %(default)s)'
    )
    parser.add_argument('--instruction', metavar='TEXT', help='the task in words')
    parser.add_argument(
        '--clock', action='store_true', help='record /clock as well, as of a simulated robot'
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the bag and say what is in it."""
    from hbvla_ros.control.profile import RobotProfile
    from hbvla_ros.recordings.fixture import FixtureOptions, write_fixture

    size = re.fullmatch(r'(\d+)x(\d+)', options.camera_size)
    if size is None:
        raise HbvlaError(f'--camera-size {options.camera_size}: write WIDTHxHEIGHT, such as 64x48')
    profile = RobotProfile.load(options.robot)
    chosen = {'instruction': options.instruction} if options.instruction is not None else {}
    fixture = FixtureOptions(
        seconds=options.seconds, seed=options.seed, size=(int(size[1]), int(size[2])),
        simulated=options.clock, **chosen,
    )  # fmt: skip
    count = write_fixture(options.out, profile, fixture)
    print(
        f'{options.out}: {options.seconds:g} s of {profile.name}, {len(profile.cameras)} cameras, '
        f'{count} instants'
    )
    return 0
