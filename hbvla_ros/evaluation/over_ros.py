# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The same episodes over ROS 2: simulator, policy, arms and a runner as processes over DDS.

Nothing of ROS is imported here. The runner (:mod:`hbvla_ros.nodes.episode_runner`) is a process
like the others and reports in JSON lines.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from hbvla_ros.errors import HbvlaError
from hbvla_ros.evaluation.closed_loop import CAMERA_SIZE, ROBOT, TASK, Progress
from hbvla_ros.evaluation.episode import EpisodeResult, Evaluation, Trace
from hbvla_ros.evaluation.processes import Child, Supervisor, free_domain, ros_environment
from hbvla_ros.sim.tasks.registry import find_task

# What the demo allows; elsewhere each task has its own limit.
MAX_SECONDS = 16.0
# Simulated seconds after a reset in which the arms rest and the policy has no instruction.
SETTLE_SECONDS = 1.0
# Joint states of the simulated robot a second, one row of a trace each.
TRACE_RATE = 50.0
# So that a node which has become active is noticed soon.
_DIAGNOSTICS_RATE = 5.0
_END_SECONDS = 10.0
Status = Callable[[str], None]


def evaluate_over_ros(
    checkpoint: str | os.PathLike[str],
    seeds: Sequence[int],
    platform: str | None = None,
    task: str = TASK,
    max_seconds: float | None = None,
    real_time_factor: float = 1.0,
    progress: Progress | None = None,
    status: Status | None = None,
) -> Evaluation:
    """Run one episode a seed on a graph of its own, which is stopped afterwards.

    Args:
        checkpoint: folder of a full-precision or a deployed checkpoint.
        seeds: one an episode, no seed twice.
        platform: platform name or file, for folders that hold none.
        task: name of the task.
        max_seconds: simulated time after which an episode has failed; None for the task's limit.
        real_time_factor: simulated seconds a second; 0 runs as fast as the machine can, and then
            inference takes more simulated time than it would on a robot.
        progress: called with each episode as it ends.
        status: called with a few words on what happens now.

    Raises:
        HbvlaError: unknown task, or a process that died, with the last line of its log.
    """
    limit = find_task(task).max_seconds if max_seconds is None else max_seconds
    if not seeds or len(set(seeds)) != len(seeds):
        raise HbvlaError(f'{len(seeds)} episodes: give at least one seed, and none twice')
    started = time.perf_counter()
    folder = Path(tempfile.mkdtemp(prefix='hbvla-graph-'))
    graph = _Graph(folder, Path(checkpoint), platform, real_time_factor, task)
    results, factors, identity = [], [], Path(checkpoint).name
    with graph.supervisor, _removed_on_interrupt(folder):
        for event in graph.events(seeds, limit):
            if event['event'] == 'episode':
                results.append(_result(event, task))
                factors.append(event['real_time_factor'])
                if progress is not None:
                    progress(results[-1])
            elif event['event'] == 'ready':
                identity = event['checkpoint']
            if status is not None:
                status(_words(event, task))
    # The logs are kept when something went wrong: the error names them.
    shutil.rmtree(folder, ignore_errors=True)
    settings = {
        **graph_settings(limit, real_time_factor),
        'achieved_real_time_factor': round(float(np.median(factors)), 3),
    }
    return Evaluation(identity, task, results, settings, time.perf_counter() - started)


def graph_settings(max_seconds: float, real_time_factor: float = 1.0) -> dict[str, Any]:
    """How episodes are run over ROS 2, plain JSON types.

    Args:
        max_seconds: simulated time limit of an episode.
        real_time_factor: simulated seconds a second that are asked for.
    """
    return {
        'where': 'over ROS 2',
        'max_seconds': max_seconds,
        'real_time_factor': real_time_factor,
        'trace_rate_hz': TRACE_RATE,
        'settle_seconds': SETTLE_SECONDS,
        'camera_size': CAMERA_SIZE,
        'inference_threads': _inference_threads(),
        'parallel': 1,
    }


@contextmanager
def _removed_on_interrupt(folder: Path) -> Iterator[None]:
    """Nobody reads the logs of a run that somebody stopped."""
    try:
        yield
    except KeyboardInterrupt:
        shutil.rmtree(folder, ignore_errors=True)
        raise


class _Graph:
    """The processes of one run and what the runner says."""

    def __init__(
        self,
        folder: Path,
        checkpoint: Path,
        platform: str | None,
        real_time_factor: float,
        task: str,
    ) -> None:
        """Prepare; nothing is started before :meth:`events`."""
        environment = ros_environment(free_domain())
        environment['OMP_NUM_THREADS'] = str(_inference_threads())
        self.supervisor = Supervisor(folder, environment)
        self._folder = folder
        self._nodes: dict[str, dict[str, Any]] = {
            'sim_robot_node': {
                'robot': ROBOT,
                'task': task,
                'camera_size': CAMERA_SIZE,
                'real_time_factor': real_time_factor,
                'settle': SETTLE_SECONDS,
            },
            'arm_node': {
                'robot': ROBOT,
                'use_sim_time': True,
                'autostart': True,
                'diagnostics_rate': _DIAGNOSTICS_RATE,
            },
            'policy_node': {
                'robot': ROBOT,
                'checkpoint': str(checkpoint.resolve()),
                'platform': platform or '',
                'use_sim_time': True,
                'autostart': True,
                'diagnostics_rate': _DIAGNOSTICS_RATE,
            },
        }

    def events(self, seeds: Sequence[int], max_seconds: float) -> Iterator[dict[str, Any]]:
        """Start everything and give the runner's events until it is done.

        Raises:
            HbvlaError: a process ended before that, or the runner reports an error.
        """
        for name, parameters in self._nodes.items():
            self.supervisor.start(name, node_arguments(name, parameters))
        runner = self.supervisor.start(
            'episode_runner',
            ['-m', 'hbvla_ros.nodes.episode_runner', '--folder', str(self._folder)]
            + ['--robot', ROBOT, '--max-seconds', str(max_seconds)]
            + ['--seeds', *map(str, seeds)],
            output=subprocess.PIPE,
        )
        lines = _read_lines(runner)
        while True:
            try:
                line = lines.get(timeout=0.5)
            except queue.Empty:
                self.supervisor.check()
                continue
            event = json.loads(line) if line else {'event': 'ended'}
            if event['event'] == 'done':
                self._see_off(runner)
                return
            if event['event'] in ('error', 'ended'):
                self._fail(runner, event.get('message'))
            yield event

    def _see_off(self, runner: Child) -> None:
        """Let the runner end by itself; one that does not is stopped with the others."""
        try:
            runner.process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            return
        self.supervisor.forget(runner)

    def _fail(self, runner: Child, message: str | None) -> None:
        """Raise for the node that died, else what the runner says, else the runner's own end."""
        self._see_off(runner)
        self.supervisor.check()
        raise HbvlaError(f'{message}; see {self._folder}') if message else runner.failure()


def node_arguments(name: str, parameters: dict[str, Any]) -> list[str]:
    """Arguments after the interpreter that run one of our nodes with parameters."""
    arguments = ['-m', f'hbvla_ros.nodes.{name}', '--ros-args']
    for key, value in parameters.items():
        # Quoted as YAML, so that a path or an empty text stays a text.
        text = json.dumps(value)
        arguments += ['-p', f'{key}:={text}']
    return arguments


def _inference_threads() -> int:
    """Simulator and policy share the cores; more threads than half of them only get in the way."""
    asked = os.environ.get('OMP_NUM_THREADS')
    if asked:
        return int(asked)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    return max(1, (cores or 2) // 2)


def _read_lines(child: Child) -> queue.SimpleQueue[str]:
    """Lines of a child's standard output, then an empty text when it ends."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    stream = child.process.stdout
    assert stream is not None

    def read() -> None:
        try:
            for line in stream:
                lines.put(line)
        except ValueError:
            pass  # Closed by the supervisor while we were reading.
        lines.put('')

    threading.Thread(target=read, name='runner output', daemon=True).start()
    return lines


def _result(event: dict[str, Any], task: str) -> EpisodeResult:
    """The episode that a runner's event describes, with the motion it wrote."""
    with np.load(event['trace'], allow_pickle=False) as archive:
        trace = Trace(
            archive['times'],
            archive['commands'],
            archive['positions'],
            archive['sent'],
            float(archive['control_period']),
        )
    return EpisodeResult(
        seed=event['seed'],
        instruction=event['instruction'],
        success=event['success'],
        stage=event['stage'],
        duration=event['duration'],
        chunks=event['chunks'],
        latencies=tuple(event['latencies']),
        trace=trace,
        task=task,
        real_time_factor=event['real_time_factor'],
    )


def _words(event: dict[str, Any], task: str) -> str:
    """An event in a few words."""
    if event['event'] == 'progress':
        stage = find_task(task).stages[event['stage']]
        return f'seed {event["seed"]}  {event["elapsed"]:4.1f} s  {stage}'
    return f'seed {event["seed"]}  done' if event['event'] == 'episode' else 'nodes are running'
