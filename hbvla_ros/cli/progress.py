# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Progress of episodes on a terminal: a live line there, plain lines everywhere else."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from hbvla_ros.evaluation.episode import EpisodeResult


def stop_like_an_interrupt() -> None:
    """Let SIGTERM end this program as Ctrl-C does, so that it cleans up behind itself."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


class Reporter:
    """Says what is going on, on standard error, so that standard output stays clean.

    Use it as a context. On a terminal the present work is a live line below what was said;
    elsewhere (a log, a pipe) every message is one plain line.
    """

    def __init__(self, console: Console | None = None) -> None:
        """Write to ``console``, standard error by default."""
        self._console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._live: Progress | None = None
        if self._console.is_terminal:
            self._live = Progress(
                SpinnerColumn(),
                TextColumn('{task.description}'),
                BarColumn(24),
                TextColumn('{task.fields[text]}', style='dim'),
                TimeElapsedColumn(),
                console=self._console,
                transient=True,
            )
            self._task = self._live.add_task('', total=None, text='')

    def say(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, markup=False)

    def begin(self, what: str, total: int | None = None) -> None:
        """Start a piece of work of ``total`` parts."""
        if self._live is None:
            self.say(f'{what} ...')
        else:
            self._live.reset(self._task, description=what, total=total, text='')

    def status(self, text: str) -> None:
        """What happens right now; shown on a terminal only."""
        if self._live is not None:
            self._live.update(self._task, text=text)

    def advance(self) -> None:
        """One part of the present work is done."""
        if self._live is not None:
            self._live.advance(self._task)

    def episode(self, result: EpisodeResult) -> None:
        """One episode is done."""
        outcome = 'success' if result.success else 'failure'
        self.say(
            f'  seed {result.seed}  {result.instruction}: {outcome} '
            f'after {result.duration:.1f} s, {result.chunks} chunks'
        )
        self.advance()

    def __enter__(self) -> Reporter:
        """Start the live line."""
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take the live line away."""
        if self._live is not None:
            self._live.stop()
