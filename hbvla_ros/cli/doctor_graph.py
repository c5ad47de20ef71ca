# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""``hbvla doctor --robot``: the findings that :mod:`hbvla_ros.nodes.graph_check` makes."""

from __future__ import annotations

from hbvla_ros.cli.doctor_rows import Row, probe_command, ros_is_there

_MODULE = 'hbvla_ros.nodes.graph_check'
# Imports, discovery and leaving, on a busy machine.
_PATIENCE = 120.0


def graph_rows(robot: str, namespace: str, seconds: float) -> list[Row]:
    """Compare the topics of a robot profile with the running ROS 2 graph.

    Args:
        robot: name or path of a profile that has been found to be right.
        namespace: namespace of the nodes, empty for none.
        seconds: how long to listen.
    """
    why = f'the topics of {robot} can only be compared with a running ROS 2 graph'
    if not ros_is_there():
        return [
            Row('ROS 2 graph', 'fault', 'not looked at: ROS 2 is not installed', why,
                "source a ROS 2 installation, or pip install --editable '.[ros]'")
        ]  # fmt: skip
    found, error = probe_command(
        ['-m', _MODULE, robot, '--namespace', namespace, '--seconds', str(seconds)],
        seconds=seconds + _PATIENCE,
    )
    if not found:
        return [Row('ROS 2 graph', 'fault', error, why, 'mend the ROS 2 installation, see above')]
    return [Row(**finding) for finding in found['findings']]
