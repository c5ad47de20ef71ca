# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The whole graph over real DDS: four processes, a real simulator, random weights."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest

from hbvla_ros.errors import HbvlaError
from hbvla_ros.evaluation.episode import evaluation_seeds
from hbvla_ros.evaluation.over_ros import TRACE_RATE, evaluate_over_ros, node_arguments

SIMULATED = {
    'name': 'aloha_sim',
    'robot': 'aloha_sim',
    'cameras': ('cam_high', 'cam_left_wrist', 'cam_right_wrist'),
    'chunk': 10,
}


@pytest.fixture
def logs(tmp_path, monkeypatch) -> Path:
    """Where this test's graphs have their log folders, and those of no other program."""
    folder = tmp_path / 'temporary'
    folder.mkdir()
    monkeypatch.setattr(tempfile, 'tempdir', str(folder))
    return folder


def test_episodes_run_over_dds_and_are_recorded(make_tiny_checkpoint, logs):
    seen, said = [], []
    evaluation = evaluate_over_ros(
        make_tiny_checkpoint('random', platform=SIMULATED),
        evaluation_seeds(2, 40),
        max_seconds=1.6,
        # A machine with other work, too, is to infer several times within 1.6 simulated seconds.
        real_time_factor=0.5,
        progress=seen.append,
        status=said.append,
    )
    assert [one.seed for one in evaluation.episodes] == [3_000_040, 3_000_041]
    assert [one.seed for one in seen] == [3_000_040, 3_000_041]
    assert evaluation.checkpoint.startswith('random@')
    assert any('seed 3000041' in text for text in said)
    for one in evaluation.episodes:
        assert one.instruction.startswith('put the ') and not one.success
        assert 1.6 <= one.duration < 3.0
        # A chunk of ten rows is replanned at half, so about five a second.
        assert 3 <= one.chunks <= 10 * one.duration
        assert len(one.latencies) >= one.chunks - 1 and 0 < min(one.latencies) < 1.0
        trace = one.trace
        assert trace.times[0] == pytest.approx(0.0, abs=1e-6)
        assert np.diff(trace.times) == pytest.approx(1 / TRACE_RATE, abs=1e-6)
        assert trace.times[-1] == pytest.approx(one.duration, abs=0.03)
        assert trace.commands.shape == trace.positions.shape == (len(trace), 14)
        # The arms are where they start from, then they are commanded away and follow.
        assert np.abs(trace.commands[0] - trace.positions[0])[:6].max() < 0.05
        assert np.abs(trace.positions[-1] - trace.positions[0]).max() > 0.05
    least = 1.6 / evaluation.wall_seconds
    assert least < evaluation.settings['achieved_real_time_factor'] < 0.7
    assert not list(logs.iterdir())


def test_a_node_that_dies_is_one_line_with_its_last_words(tmp_path, logs):
    with pytest.raises(
        HbvlaError, match='policy_node ended with status 2: .*nowhere.*see '
    ) as caught:
        evaluate_over_ros(tmp_path / 'nowhere', evaluation_seeds(1, 0))
    # The logs are kept for whoever reads the error.
    log = Path(str(caught.value).rpartition('see ')[2])
    assert logs in log.parents
    assert 'no such checkpoint' in log.read_text()


def test_seeds_and_task_are_checked_before_anything_starts(tmp_path, logs):
    with pytest.raises(HbvlaError, match='none twice'):
        evaluate_over_ros(tmp_path, [3_000_000, 3_000_000])
    with pytest.raises(HbvlaError, match="task 'fold'"):
        evaluate_over_ros(tmp_path, [3_000_000], task='fold')
    assert not list(logs.iterdir())


def test_parameters_survive_the_command_line():
    arguments = node_arguments('policy_node', {'checkpoint': '/a b/1', 'platform': '', 'on': True})
    assert arguments[:3] == ['-m', 'hbvla_ros.nodes.policy_node', '--ros-args']
    assert 'checkpoint:="/a b/1"' in arguments and 'platform:=""' in arguments
    assert 'on:=true' in arguments and '-r' not in arguments
