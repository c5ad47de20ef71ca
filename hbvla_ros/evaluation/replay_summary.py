# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What happened in a replay, as plain JSON types: digests, inferences, holds, commands."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.control.safety import SafetyStage
from hbvla_ros.evaluation.replay import Replayed
from hbvla_ros.evaluation.replay_arms import Tick
from hbvla_ros.evaluation.replay_errors import joint_labels, number
from hbvla_ros.evaluation.replay_policy import ACCEPTED, Inference
from hbvla_ros.evaluation.statistics import Percentiles

Vector = NDArray[np.float64]

# A step of a double is not a motion beyond a limit, rad or ratio.
_ROUNDING = 1e-9


def digests(replayed: Replayed) -> dict[str, str]:
    """SHA-256 of what must be the same again: observations, frames, chunks, commands."""
    inferences, ticks = replayed.inferences, replayed.ticks
    frames = (
        f'{inference.started.now!r} {sorted(inference.stamps.items())!r}'.encode()
        for inference in inferences
    )
    chunks = (_bytes(i.chunk.actions, [i.chunk.start, i.chunk.step])
              for i in inferences if i.chunk is not None)  # fmt: skip
    commands = (_bytes(t.command, [t.instant.now]) for t in ticks if t.command is not None)
    return {
        'observations': _sha256(one.observation.encode() for one in inferences),
        'frames': _sha256(frames),
        'chunks': _sha256(chunks),
        'commands': _sha256(commands),
    }


def inference_report(replayed: Replayed) -> dict[str, Any]:
    """Inferences by what became of them, their latencies, and where chunks were entered."""
    inferences = replayed.inferences
    outcomes = Counter(kind_of(one.outcome) for one in inferences)
    latency = Percentiles.of([one.reply.seconds for one in inferences if one.replied])
    entries = [_entry_row(one) for one in inferences if one.outcome == ACCEPTED]
    chunks = [one.chunk for one in inferences if one.chunk is not None]
    ages = [one.started.now - stamp for one in inferences for stamp in one.stamps.values()]
    skews = [max(one.stamps.values()) - min(one.stamps.values()) for one in inferences]
    return {
        'started': len(inferences),
        'accepted': outcomes.get(ACCEPTED, 0),
        'outcomes': dict(sorted(outcomes.items())),
        'latency_p50_s': latency and number(latency.p50),
        'latency_p95_s': latency and number(latency.p95),
        'rows': len(chunks[0].actions) if chunks else None,
        'step_s': chunks[0].step if chunks else None,
        'rows_past_at_entry': {
            'median': number(np.median(entries)) if entries else None,
            'most': number(max(entries)) if entries else None,
        },
        'image_age_s': {'most': number(max(ages)) if ages else None},
        'image_skew_s': {'most': number(max(skews)) if skews else None},
        'list': [_row(one) for one in inferences],
    }


def holds(ticks: Sequence[Tick]) -> list[dict[str, Any]]:
    """Stretches without a target, each with its reason; numbers in it are those at its start."""
    found: list[dict[str, Any]] = []
    before = ''
    for tick in ticks:
        kind, elapsed = kind_of(tick.holding), tick.instant.elapsed
        if kind and kind == before:
            found[-1]['end_s'] = number(elapsed)
        elif kind:
            found.append(
                {'start_s': number(elapsed), 'end_s': number(elapsed), 'reason': tick.holding}
            )
        before = kind
    return found


def command_report(
    ticks: Sequence[Tick], stage: SafetyStage, profile: RobotProfile
) -> dict[str, Any]:
    """What was sent: how much of it, whether it kept the limits, and its largest step."""
    sent = [tick for tick in ticks if tick.command is not None]
    commands = np.array([tick.command for tick in sent])
    running = sum(not tick.holding for tick in ticks)
    report: dict[str, Any] = {
        'ticks': len(ticks),
        'sent': len(sent),
        'running': running,
        'holding': len(ticks) - running,
        'not_finite': int((~np.isfinite(commands)).any(axis=1).sum()) if len(sent) else 0,
        'outside_limits': 0,
        'steps_above_limit': 0,
        'worst_step': None,
    }
    if len(sent) < 2:
        return report
    report['outside_limits'] = int(_outside(commands, sent[0].measured, stage).any(axis=1).sum())
    steps = np.abs(np.diff(commands, axis=0))
    # From one tick to the next; after a gap in simulated time there is more time to move.
    periods = np.diff([tick.instant.now for tick in sent]) / stage.period
    caps = stage.velocity * stage.period * np.maximum(np.round(periods), 1.0)[:, None]
    report['steps_above_limit'] = int((steps > caps + _ROUNDING).any(axis=1).sum())
    share = steps / caps
    tick_index, joint = np.unravel_index(int(share.argmax()), share.shape)
    report['worst_step'] = {
        'joint': joint_labels(profile)[joint],
        'at_s': number(sent[tick_index + 1].instant.elapsed),
        'step': number(steps[tick_index, joint]),
        'limit': number(caps[tick_index, joint]),
        'share': number(share[tick_index, joint]),
    }
    return report


def interventions(ticks: Iterable[Tick]) -> dict[str, int]:
    """In how many turns the safety stage changed something, by kind."""
    found = Counter(kind for tick in ticks for kind in tick.interventions)
    return dict(sorted(found.items()))


def streams(replayed: Replayed) -> dict[str, dict[str, int]]:
    """What became of the messages of each camera and arm."""
    return {name: counters.values() for name, counters in replayed.counters.items()}


def kind_of(reason: str) -> str:
    """A reason without its numbers, so that the same one is known again."""
    return re.sub(r'(?<![\w.])-?\d+(\.\d+)?(?![\w.])', '#', reason)


def _outside(commands: Vector, measured: Vector | None, stage: SafetyStage) -> Vector:
    """Boolean (T, A): beyond a limit, and not on the way back from further out."""
    first = commands[:1] if measured is None else measured[None]
    before = np.concatenate([first, commands[:-1]])
    below = commands < np.minimum(stage.lower, before) - _ROUNDING
    return np.asarray(below | (commands > np.maximum(stage.upper, before) + _ROUNDING))


def _row(inference: Inference) -> dict[str, Any]:
    started = inference.started
    return {
        'at_s': number(started.elapsed),
        'stamps': dict(inference.stamps),
        'age_s': number(started.now - inference.stamp),
        'latency_s': number(inference.reply.seconds),
        'outcome': inference.outcome,
        'observation': inference.observation,
    }


def _entry_row(inference: Inference) -> float:
    """Rows of a chunk that are past when it arrives."""
    assert inference.chunk is not None and inference.replied is not None
    return (inference.replied.now - inference.chunk.start) / inference.chunk.step


def _bytes(values: Vector, more: Sequence[float]) -> bytes:
    return np.asarray(values, dtype='<f8').tobytes() + np.asarray(more, dtype='<f8').tobytes()


def _sha256(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, 'little'))
        digest.update(part)
    return digest.hexdigest()
