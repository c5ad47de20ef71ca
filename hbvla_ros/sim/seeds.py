# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Disjoint seed ranges for demonstrations, validation and evaluation."""

from __future__ import annotations

from collections.abc import Iterable

from hbvla_ros.errors import HbvlaError

# An episode is decided by its seed alone, so a seed seen in training must never be evaluated.
RANGES = {
    'demos': range(1_000_000, 2_000_000),
    'validation': range(2_000_000, 2_100_000),
    'evaluation': range(3_000_000, 3_100_000),
}


def seed_range(purpose: str, count: int, offset: int = 0) -> range:
    """Return ``count`` seeds of a purpose, from its ``offset``-th seed on.

    Raises:
        HbvlaError: unknown purpose, or the range is too small.
    """
    if purpose not in RANGES:
        raise HbvlaError(f'seed purpose {purpose!r}: must be one of {", ".join(RANGES)}')
    whole = RANGES[purpose]
    if count < 0 or offset < 0 or offset + count > len(whole):
        raise HbvlaError(
            f'{purpose} seeds: {count} from offset {offset} do not fit in {len(whole)}; '
            'use a smaller number'
        )
    return whole[offset : offset + count]


def purpose_of(seed: int) -> str:
    """Return the purpose a seed belongs to, ``'other'`` outside every range."""
    for purpose, whole in RANGES.items():
        if seed in whole:
            return purpose
    return 'other'


def check_disjoint(first: Iterable[int], second: Iterable[int], names: tuple[str, str]) -> None:
    """Refuse two seed sets that share a seed.

    Args:
        first: seeds of the first set, for instance those a policy was trained on.
        second: seeds of the second set.
        names: what the two sets are called in the error.

    Raises:
        HbvlaError: the sets overlap; the line names the smallest shared seed.
    """
    shared = set(first) & set(second)
    if shared:
        raise HbvlaError(
            f'seed {min(shared)}: in both {names[0]} and {names[1]} ({len(shared)} shared); '
            'choose seeds of another range'
        )


def check_purpose(seeds: Iterable[int], purpose: str) -> None:
    """Refuse seeds that are not reserved for ``purpose``.

    Raises:
        HbvlaError: a seed belongs to another purpose or to none.
    """
    for seed in seeds:
        if seed not in RANGES[purpose]:
            raise HbvlaError(
                f'seed {seed}: belongs to {purpose_of(seed)}, not {purpose}; use a seed in '
                f'[{RANGES[purpose].start}, {RANGES[purpose].stop})'
            )
