# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Command adapters, one class a kind of driver, and what puts the commands of all arms on the wire.

Robots are commanded with :class:`CommandWriter`; the simulated robot reads the same messages with
:meth:`CommandAdapter.parse`.
"""

from hbvla_ros.nodes.adapters.base import CommandAdapter, Motion
from hbvla_ros.nodes.adapters.streams import ForwardCommand, JointStateCommand
from hbvla_ros.nodes.adapters.trajectory import JointTrajectoryCommand
from hbvla_ros.nodes.adapters.wire import WireReader, command_topics
from hbvla_ros.nodes.adapters.writer import CommandWriter, make_adapter

__all__ = [
    'CommandAdapter',
    'CommandWriter',
    'ForwardCommand',
    'JointStateCommand',
    'JointTrajectoryCommand',
    'Motion',
    'WireReader',
    'command_topics',
    'make_adapter',
]
