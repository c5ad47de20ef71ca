# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Loading the policy and asking it with ROS messages; runs on the worker thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hbvla_ros.control import inference
from hbvla_ros.control.inference import (
    Outcome,
    PolicyLike,
    Request,
    UndecodableImage,
    check_policy,
)
from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.errors import HbvlaError
from hbvla_ros.nodes.conversions import decode_image

__all__ = [
    'Outcome',
    'PolicyFactory',
    'PolicyLike',
    'Request',
    'UndecodableImage',
    'check_policy',
    'infer',
    'load_policy',
]

PolicyFactory = Callable[[Mapping[str, Any]], PolicyLike]


def load_policy(values: Mapping[str, Any]) -> PolicyLike:
    """Load the policy that a node's parameters name.

    Raises:
        HbvlaError: no checkpoint given, or whatever is wrong with it.
    """
    if not values['checkpoint']:
        raise HbvlaError('parameter checkpoint is empty: give the folder of a checkpoint')
    from hbvla_ros.policy import Policy, dtype_for

    return Policy.load(
        values['checkpoint'],
        platform=values['platform'] or None,
        dtype=dtype_for(values['device']),
        device=values['device'],
        residency=values['residency'],
    )


def infer(policy: PolicyLike, profile: RobotProfile, request: Request) -> Outcome:
    """Decode the frames, as messages of rclpy, and ask the policy.

    Raises:
        UndecodableImage: an image cannot be decoded.
        HbvlaError: the policy refuses, or its chunk has the wrong shape or is not finite.
    """
    return inference.infer(policy, profile, request, decode_image)
