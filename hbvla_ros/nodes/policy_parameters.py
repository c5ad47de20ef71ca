# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Parameters of the policy node."""

from __future__ import annotations

from hbvla_ros.nodes.parameters import Parameter

TABLE = (
    Parameter(
        'checkpoint',
        '',
        'Folder of the checkpoint, full precision or quantized; ~/reload loads a changed one.',
        changeable=True,
    ),
    Parameter('robot', 'aloha_sim', 'Robot profile: a name or the path of a profile .yaml.'),
    Parameter('instruction', '', 'Task in words; empty waits for ~/instruction.', changeable=True),
    Parameter(
        'platform', '', 'Platform name or .json, for a checkpoint that does not say its own.'
    ),
    Parameter(
        'device',
        'cpu',
        'Where the network runs: cpu computes in float32, cuda or cuda:0 in bfloat16.',
    ),
    Parameter(
        'residency',
        'bf16',
        'How packed layers sit in memory: bf16 (dequantized) or packed.',
        choices=('bf16', 'packed'),
    ),
    Parameter(
        'replan_fraction',
        0.5,
        'Share of the present chunk after which the next inference starts.',
        low=0.0,
        high=1.0,
    ),
    Parameter(
        'inference_period',
        0.0,
        'Start an inference every so many s instead; 0 goes by replan_fraction.',
        low=0.0,
        high=10.0,
    ),
    Parameter(
        'inference_deadline',
        5.0,
        'An inference that takes longer is reported as an error and its chunk dropped, s.',
        low=0.05,
        high=600.0,
    ),
    Parameter(
        'hold_on_loss',
        False,
        'Hold as soon as a camera or an arm is lost instead of when the present chunk ends.',
    ),
    Parameter('wait_for_start', False, 'Once active, wait for ~/start before anything moves.'),
    Parameter('poll_rate', 100.0, 'How often it looks what is due, Hz.', low=10.0, high=500.0),
    Parameter(
        'heartbeat_rate', 20.0, 'Messages on ~/heartbeat per second, Hz.', low=10.0, high=100.0
    ),
    Parameter(
        'diagnostics_rate', 1.0, 'Reports on /diagnostics per second, Hz.', low=0.1, high=10.0
    ),
)
