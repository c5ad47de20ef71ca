# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What the policy node counts and measures, and how it says so on /diagnostics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hbvla_ros.control.inference import UndecodableImage
from hbvla_ros.control.latency import LatencyTracker
from hbvla_ros.nodes import diagnostics
from hbvla_ros.nodes.engine import Engine, Finished, reason_of
from hbvla_ros.nodes.frames import FrameReader
from hbvla_ros.nodes.joint_reader import JointReader
from hbvla_ros.nodes.memory import device_megabytes, resident_megabytes


@dataclass
class InferenceRecord:
    """How inferences went since the start, or since :meth:`forget`.

    Attributes:
        chunk_rate: chunks that were sent.
        latency, decoding, acting, publishing: s of each inference and of its parts.
        failed: inferences without a chunk.
        late: inferences that took longer than the deadline.
        failure: what was wrong with the last one, empty if nothing.
    """

    chunk_rate: diagnostics.RateMeter = field(default_factory=diagnostics.RateMeter)
    latency: LatencyTracker = field(default_factory=LatencyTracker)
    decoding: LatencyTracker = field(default_factory=LatencyTracker)
    acting: LatencyTracker = field(default_factory=LatencyTracker)
    publishing: LatencyTracker = field(default_factory=LatencyTracker)
    failed: int = 0
    late: int = 0
    failure: str = ''

    def add(self, finished: Finished, frames: FrameReader) -> None:
        """Take note of an inference that has ended."""
        outcome, error = finished.outcome, finished.error
        if outcome is None:
            self.failed += 1
            self.failure = reason_of(error) if error is not None else ''
            if isinstance(error, UndecodableImage):
                frames.undecodable(error.camera)
            return
        self.failure = ''
        self.latency.add(outcome.seconds)
        self.decoding.add(outcome.decoding)
        self.acting.add(outcome.acting)
        self.publishing.add(outcome.publishing)
        if finished.sent:
            self.chunk_rate.tick()

    def forget(self) -> None:
        """Latencies and the last failure belong to the past; counts go on."""
        self.latency, self.decoding = LatencyTracker(), LatencyTracker()
        self.acting, self.publishing = LatencyTracker(), LatencyTracker()
        self.failure = ''

    def too_slow(self, engine: Engine, replan_fraction: float) -> str:
        """What is wrong if inference takes longer than the rest of a chunk lasts, or empty."""
        platform, latency = engine.policy.platform, self.latency.percentile(95)
        rest = (1.0 - replan_fraction) * platform.chunk * platform.step
        if latency is None or latency < rest:
            return ''
        return f'inference takes {latency:.2f} s, the rest of a chunk only {rest:.2f} s'

    def values(self) -> dict[str, object]:
        """Everything by name, times in s."""
        return {
            'chunk rate': self.chunk_rate.read(),
            'inferences failed': self.failed,
            'inferences late': self.late,
            'last failure': self.failure,
            'latency p50': self.latency.percentile(50),
            'latency p95': self.latency.percentile(95),
            'decoding p95': self.decoding.percentile(95),
            'acting p95': self.acting.percentile(95),
            'publishing p95': self.publishing.percentile(95),
        }


def model_values(engine: Engine, parameters: Mapping[str, Any]) -> dict[str, object]:
    """What runs where, and what it takes; memory in MB (10^6 bytes)."""
    return {
        'checkpoint': engine.policy.checkpoint,
        'backend': f'torch on {parameters["device"]}',
        'residency': parameters['residency'],
        'warm-up': engine.warm_up,
        'memory': resident_megabytes(),
        'device memory': device_megabytes(parameters['device']),
    }


def stream_values(frames: FrameReader, joints: JointReader, now: float) -> dict[str, object]:
    """Rates in Hz, ages in s and counts of every stream; ``now`` in s on the node's clock."""
    values: dict[str, object] = {
        'joint state age': joints.age(),
        'joint state rate': joints.rate.read(),
    }
    for name, age in frames.streams.ages(now).items():
        values[f'{name} age'] = age
        values[f'{name} rate'] = frames.rates[name].read()
        counts = frames.streams.counters[name].values()
        values.update({f'{name} {what}': count for what, count in counts.items()})
    for name, counters in joints.streams.counters.items():
        counts = {
            what: count
            for what, count in counters.values().items()
            if what not in ('replaced', 'frozen')
        }
        values.update({f'{name} arm {what}': count for what, count in counts.items()})
    return values
