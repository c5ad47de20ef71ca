# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Finished units of an evaluation, one JSON line each, so that a stopped run can go on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from hbvla_ros.errors import HbvlaError
from hbvla_ros.evaluation.plan import Outcome, Unit
from hbvla_ros.evaluation.report import write_atomically

FORMAT = 'hbvla eval work file'
FORMAT_VERSION = 1


def work_path(out: Path) -> Path:
    """The work file beside a result file."""
    return out.with_name(f'{out.stem}.episodes.jsonl')


def header(
    settings: Mapping[str, Any], checkpoints: Mapping[str, str], tasks: Mapping[str, str]
) -> dict[str, Any]:
    """What the outcomes in a work file have in common.

    Args:
        settings: how episodes are run.
        checkpoints: folder to identity.
        tasks: name to digest.
    """
    return {
        'format': FORMAT,
        'format_version': FORMAT_VERSION,
        'settings': dict(settings),
        'checkpoints': dict(checkpoints),
        'tasks': dict(tasks),
    }


class WorkFile:
    """Outcomes that are on disk already, and a place for those to come.

    The file begins with a header; a run that goes on adds one of its own, then its outcomes. A
    last line that was cut off by a crash is dropped.

    Args:
        path: the file.
        content: header of this run, see :func:`header`.
        resume: go on with what the file holds; there may be none yet.

    Attributes:
        path: the file.
        known: key of a unit to its outcome.

    Raises:
        HbvlaError: the file holds an unfinished run and ``resume`` is not set, is none of these
            files, or its checkpoints, tasks or settings are others.
    """

    def __init__(self, path: Path, content: Mapping[str, Any], resume: bool) -> None:
        """Read what is there, then open for more."""
        self.path = path
        self.known: dict[str, Outcome] = {}
        lines = _read(path)
        if resume:
            self._take_over(lines, content)
        else:
            _refuse_to_lose(path, lines)
        path.parent.mkdir(parents=True, exist_ok=True)
        # What is kept is written anew, without a torn line; a crash now loses nothing.
        kept = [*(lines if resume else []), content]
        write_atomically(path, ''.join(json.dumps(line) + '\n' for line in kept))
        self._stream: IO[str] = path.open('a', encoding='utf-8')

    def add(self, unit: Unit, outcome: Outcome) -> None:
        """Keep the outcome of a unit; it is on its way to the disk when this returns."""
        self.put(unit.key, outcome)

    def put(self, key: str, outcome: Outcome) -> None:
        """Keep an outcome under a key."""
        self.known[key] = outcome
        self._write({'unit': key, 'outcome': outcome})

    def finish(self) -> None:
        """Note that the run came to its end, so that the next one may begin afresh."""
        self._write({'finished': True})
        self.close()

    def close(self) -> None:
        """Close the file and leave it."""
        self._stream.close()

    def _write(self, line: Mapping[str, Any]) -> None:
        self._stream.write(json.dumps(line) + '\n')
        self._stream.flush()

    def _take_over(self, lines: list[dict[str, Any]], content: Mapping[str, Any]) -> None:
        for line in lines:
            if 'format' in line:
                _check_header(self.path, line, content)
            elif 'unit' in line:
                self.known[line['unit']] = line['outcome']


def _read(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file; none where there is no file.

    Raises:
        HbvlaError: unreadable, or not a work file of this version.
    """
    try:
        text = path.read_text(encoding='utf-8')
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise HbvlaError(f'{path}: not readable ({error}); remove it') from error
    whole, lines = text.split('\n')[:-1], []
    for number, line in enumerate(whole, start=1):
        try:
            lines.append(dict(json.loads(line)))
        except (ValueError, TypeError) as error:
            raise HbvlaError(f'{path}, line {number}: damaged; remove the line') from error
    if lines and (
        lines[0].get('format') != FORMAT or lines[0].get('format_version') != FORMAT_VERSION
    ):
        raise HbvlaError(
            f'{path}: is no work file of this release; remove it or name another --out'
        )
    return lines


def _refuse_to_lose(path: Path, lines: list[dict[str, Any]]) -> None:
    # A key holds checkpoint, task and reference, then the seeds.
    count = sum(len(json.loads(line['unit'])) - 3 for line in lines if 'unit' in line)
    if count and 'finished' not in lines[-1]:
        raise HbvlaError(
            f'{path}: holds {count} finished episodes of a run that was stopped; add --resume to '
            'go on with it, or remove the file'
        )


def _check_header(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse what was run in another way; other checkpoints and tasks may join.

    Raises:
        HbvlaError: names what differs.
    """
    for name, value in wanted['settings'].items():
        before = found['settings'].get(name)
        if before != value:
            raise HbvlaError(
                f'{path}: was run with {name} {before}, now it is {value}; leave the setting as it '
                'was, or name another --out'
            )
    for part, what in (('checkpoints', 'checkpoint'), ('tasks', 'task')):
        for name, digest in wanted[part].items():
            if found[part].get(name, digest) != digest:
                raise HbvlaError(
                    f'{path}: {what} {name} has changed since ({found[part][name][-8:]} then, '
                    f'{digest[-8:]} now); name another --out'
                )
