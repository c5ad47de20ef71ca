# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What the pipeline tells while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from hbvla_ros.packed.manifest import LayerEntry


class Progress(Protocol):
    """What a caller may want to see; it may also raise, which ends the pipeline."""

    def stage(self, title: str, steps: int) -> None:
        """A new stage of so many steps begins."""

    def step(self, name: str = '', entry: LayerEntry | None = None) -> None:
        """One step of the stage is done; a quantized layer comes with its entry."""


class SilentProgress:
    """Shows nothing."""

    def stage(self, title: str, steps: int) -> None:
        """Ignore it."""

    def step(self, name: str = '', entry: LayerEntry | None = None) -> None:
        """Ignore it."""
