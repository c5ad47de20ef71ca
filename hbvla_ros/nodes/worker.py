# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""One thread that owns the model, from loading to the last inference."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

Result = TypeVar('Result')


class Worker:
    """Runs jobs one after the other on its own thread.

    torch keeps state per thread (compiled graphs, CUDA graphs, thread pools), so everything that
    touches the model goes through here. The thread is a daemon: a job that never returns cannot
    keep the process from leaving.
    """

    def __init__(self, name: str) -> None:
        """Start the thread."""
        self._jobs: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]
        self._jobs = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[], Result]) -> Future[Result]:
        """Queue a job; its result or exception comes through the future."""
        future: Future[Result] = Future()
        self._jobs.put((future, job))
        return future

    def close(self, timeout: float) -> bool:
        """Let the present job end; True if the thread is gone within ``timeout`` seconds."""
        self._jobs.put(None)
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            entry = self._jobs.get()
            if entry is None:
                return
            future, job = entry
            try:
                future.set_result(job())
            except BaseException as error:
                future.set_exception(error)
