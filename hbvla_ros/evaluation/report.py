# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The demo's report: one self-contained HTML page, rendered from the content of its JSON file."""

from __future__ import annotations

import base64
import contextlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hbvla_ros.errors import HbvlaError
from hbvla_ros.evaluation.statistics import SuccessRate

if TYPE_CHECKING:
    from jinja2 import Environment

_TEMPLATES = Path(__file__).parent / 'templates'


@dataclass(frozen=True)
class Media:
    """Pictures of the report; whatever is ``None`` is left out of the page.

    Attributes:
        video: an MP4 file.
        poster: a JPEG file that stands for it until it plays.
        video_caption: what it shows.
        strip: a JPEG file with the robot's cameras over time.
        strip_caption: what it shows.
        tracking: SVG text of commanded against measured joints.
        tracking_caption: what it shows.
        latency: SVG text of the distribution of chunk latencies.
        latency_caption: what is measured.
    """

    video: bytes | None = None
    poster: bytes | None = None
    video_caption: str = ''
    strip: bytes | None = None
    strip_caption: str = ''
    tracking: str | None = None
    tracking_caption: str = ''
    latency: str | None = None
    latency_caption: str = ''


def render_report(report: Mapping[str, Any], media: Media) -> str:
    """The report as HTML text without external resources.

    Args:
        report: content of ``report.json``: ``title``, ``subtitle``, ``command``, ``method``,
            ``notices``, ``versions``, ``conditions`` (each ``name``, ``size`` as of ``hbvla info
            --json``, ``evaluation`` and ``in_process`` as of ``hbvla eval --json``) and ``sizes``.
        media: pictures.
    """
    from markupsafe import Markup

    conditions = report['conditions']
    return (
        templates()
        .get_template('report.html')
        .render(
            title=report['title'],
            subtitle=report['subtitle'],
            notices=report['notices'],
            command=report['command'],
            method=report['method'],
            versions=report['versions'],
            conditions=[_card(one) for one in conditions],
            reading=reading(conditions),
            sizes=[_size_row(one) for one in report['sizes']],
            comparison=[_comparison_row(one) for one in conditions],
            episodes=_episode_rows(conditions),
            video=media.video and _data_address('video/mp4', media.video),
            poster=media.poster and _data_address('image/jpeg', media.poster),
            video_caption=media.video_caption,
            strip=media.strip and _data_address('image/jpeg', media.strip),
            strip_caption=media.strip_caption,
            tracking=media.tracking and Markup(media.tracking),
            tracking_caption=media.tracking_caption,
            latency_plot=media.latency and Markup(media.latency),
            latency_caption=media.latency_caption,
        )
    )


def templates() -> Environment:
    """The pages' templates; what a page lacks is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )


def reading(conditions: Sequence[Mapping[str, Any]]) -> str:
    """What the intervals of the first two conditions allow to say, and no more."""
    if len(conditions) < 2:
        return ''
    first, second = (_rate(one['evaluation']) for one in conditions[:2])
    names = conditions[0]['name'], conditions[1]['name']
    count = f'{first.episodes} and {second.episodes} episodes'
    if first.episodes == second.episodes:
        count = f'{first.episodes} episodes each'
    if first.agrees_with(second):
        return (
            f'The two intervals overlap: {count} do not tell {names[0]} and {names[1]} apart. '
            'That is not proof of equality; more episodes narrow the intervals.'
        )
    better = names[0] if first.rate > second.rate else names[1]
    return f'The two intervals do not overlap: in {count}, {better} is the better one.'


def size_text(count: float) -> str:
    """Bytes with a decimal unit, such as ``1.84 MB``."""
    for unit, factor in (('GB', 1e9), ('MB', 1e6), ('kB', 1e3)):
        if count >= factor:
            return f'{count / factor:.3g} {unit}'
    return f'{count:.0f} bytes'


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file under a temporary name first, so that no reader meets a half of it.

    Raises:
        HbvlaError: the disk refuses.
    """
    data = content.encode('utf-8') if isinstance(content, str) else content
    temporary = path.with_name(f'.{path.name}.tmp')
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
        raise HbvlaError(f'{path}: cannot write it: {error.strerror or error}') from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _rate(evaluation: Mapping[str, Any]) -> SuccessRate:
    return SuccessRate(evaluation['successes'], evaluation['episodes'])


def _percent(rate: float) -> int:
    return math.floor(100 * rate + 0.5)


def _milliseconds(seconds: float | None) -> str:
    if seconds is None:
        return '?'
    return f'{1e3 * seconds:.0f}' if seconds >= 0.01 else f'{1e3 * seconds:.1f}'


def _card(condition: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers of one condition as they are printed on its card."""
    evaluation, size = condition['evaluation'], condition['size']
    rate = _rate(evaluation)
    interval = rate.interval
    p50, p95 = evaluation['latency_p50_s'], evaluation['latency_p95_s']
    seconds = evaluation['time_to_success_p50_s']
    return {
        'name': condition['name'],
        'percent': _percent(rate.rate),
        'successes': rate.successes,
        'episodes': rate.episodes,
        'low': _percent(interval.low),
        'high': _percent(interval.high),
        'stored_bits': f'{size["stored_bits_per_weight"]:.2f}',
        'nominal_bits': f'{size["nominal_bits_per_weight"]:g}',
        'layer_size': size_text(size['quantized_bytes']),
        'latency': f'{_milliseconds(p50)} ms median, {_milliseconds(p95)} ms p95',
        'time_to_success': '-' if seconds is None else f'{seconds:.1f} s median',
    }


def _size_row(size: Mapping[str, Any]) -> dict[str, str]:
    """One line of the size table; bytes are written out, so that they can be compared."""
    return {
        'name': size['name'],
        'stored_bits': f'{size["stored_bits_per_weight"]:.3f}',
        'nominal_bits': f'{size["nominal_bits_per_weight"]:g}',
        'layer_bytes': f'{size["quantized_bytes"]:,}',
        'folder_bytes': f'{size["total_bytes"]:,}',
        'driven': 'yes' if size['driven'] else 'no, size only',
    }


def _comparison_row(condition: Mapping[str, Any]) -> dict[str, str]:
    """Over ROS against in process, and whether the episodes tell them apart."""
    over_ros, in_process = _rate(condition['evaluation']), _rate(condition['in_process'])
    return {
        'name': condition['name'],
        'over_ros': str(over_ros),
        'in_process': str(in_process),
        'verdict': 'overlap' if over_ros.agrees_with(in_process) else 'do not overlap',
    }


def _episode_rows(conditions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One line a seed with the outcome under every condition."""
    by_seed: dict[int, dict[str, Any]] = {}
    for index, condition in enumerate(conditions):
        for row in condition['evaluation']['rows']:
            line = by_seed.setdefault(
                row['seed'],
                {
                    'seed': row['seed'],
                    'instruction': row['instruction'],
                    'cells': [{'success': False, 'text': 'not run'} for _ in conditions],
                },
            )
            text = (
                f'done in {row["duration_s"]:.1f} s'
                if row['success']
                else (f'not done in {row["duration_s"]:.1f} s, got to: {row["stage_name"]}')
            )
            line['cells'][index] = {'success': row['success'], 'text': text}
    return [by_seed[seed] for seed in sorted(by_seed)]


def _data_address(kind: str, content: bytes) -> str:
    return f'data:{kind};base64,{base64.b64encode(content).decode("ascii")}'
