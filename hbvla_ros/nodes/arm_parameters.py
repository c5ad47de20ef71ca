# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Parameters of the arm node."""

from __future__ import annotations

from hbvla_ros.nodes.parameters import Parameter

TABLE = (
    Parameter('robot', 'aloha_sim', 'Robot profile: a name or the path of a profile .yaml.'),
    Parameter('require_guard', False, 'Hold until a guard_node is heard.'),
    Parameter(
        'temporal_ensemble',
        -1.0,
        'Average overlapping chunks, the i-th oldest by exp(-value * i); 0 weighs them equally, '
        '-1 executes the newest alone.',
        low=-1.0,
        high=10.0,
    ),
    Parameter(
        'heartbeat_rate', 20.0, 'Messages on ~/heartbeat per second, Hz.', low=10.0, high=100.0
    ),
    Parameter(
        'diagnostics_rate', 1.0, 'Reports on /diagnostics per second, Hz.', low=0.1, high=10.0
    ),
)
