# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What became of the messages of one camera or one arm, in numbers."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class StreamCounters:
    """Counts of one stream since it was opened.

    Attributes:
        received: messages that arrived.
        used: messages that an observation was made of, each counted once.
        replaced: a newer one came before an observation was made of it (cameras only).
        too_old: was too old, or stamped too far ahead, when an observation was wanted.
        skewed: lay too far in time from the other cameras, for an arm from the images.
        out_of_order: stamped no later than the one before it; not taken from a camera.
        undecodable: could not be read: no image, a joint missing, a number that is not finite.
        frozen: came from a camera while it counted as frozen.
    """

    received: int = 0
    used: int = 0
    replaced: int = 0
    too_old: int = 0
    skewed: int = 0
    out_of_order: int = 0
    undecodable: int = 0
    frozen: int = 0
    _last: dict[str, object] = field(default_factory=dict, repr=False, compare=False)

    def count_once(self, what: str, item: object) -> None:
        """Count an item under a name above, unless it is the one counted under it last.

        A node asks a hundred times a second whether there is an observation; one late image is
        still one late image.
        """
        if self._last.get(what) is not item:
            self._last[what] = item
            setattr(self, what, getattr(self, what) + 1)

    def values(self) -> dict[str, int]:
        """The counts by name, those of zero as well."""
        return {
            'received': self.received,
            'used': self.used,
            'replaced': self.replaced,
            'too old': self.too_old,
            'skewed': self.skewed,
            'out of order': self.out_of_order,
            'undecodable': self.undecodable,
            'frozen': self.frozen,
        }
