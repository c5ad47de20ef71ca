# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The one error type of the package."""

from __future__ import annotations


class HbvlaError(Exception):
    """Bad input: one line that names the file, key or topic and says how to fix it.

    Commands print it as ``hbvla: error: <line>`` and exit with status 2; nodes log it at ERROR.
    """

    def __init__(self, message: str) -> None:
        super().__init__(' '.join(message.split()))
