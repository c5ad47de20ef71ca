# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Message definitions for bags: ROS 2 Jazzy and the drivers that are commanded."""

from __future__ import annotations

import functools

from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

# Fields and types of the Interbotix commands, spec ros.md section 1.3.
_INTERBOTIX = {
    'interbotix_xs_msgs/msg/JointGroupCommand': 'string name\nfloat32[] cmd\n',
    'interbotix_xs_msgs/msg/JointSingleCommand': 'string name\nfloat32 cmd\n',
}


@functools.cache
def message_types() -> Typestore:
    """The definitions; putting them together takes longer than writing a bag."""
    store = get_typestore(Stores.ROS2_JAZZY)
    for name, definition in _INTERBOTIX.items():
        store.register(get_types_from_msg(definition, name))
    return store
