# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Options that every method has; each method extends them in its own module."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from hbvla_ros.errors import HbvlaError

_SEEDS = 2**63


@dataclass(frozen=True)
class MethodOptions:
    """What every method is asked for; every field stands in the manifest.

    Attributes:
        damping: added to the diagonal of the Hessian, as a share of its mean.
        seed: seed of everything random in the method.
    """

    damping: float = 0.01
    seed: int = 0


Options = TypeVar('Options')
# Fields that have a flag of their own.
_FLAGS = {'seed', 'kind'}


def with_settings(
    options: Options, settings: Sequence[str], method: str, flag: str = '--set'
) -> Options:
    """Options changed as ``NAME=VALUE`` texts say.

    Args:
        options: a frozen dataclass to start from.
        settings: such as ``['norm=l1', 'drop=false']``.
        method: name of the method, for messages.
        flag: what the settings were given with, for messages.

    Raises:
        HbvlaError: no such option, or no such value; lists what there is.
    """
    kinds = typing.get_type_hints(type(options))
    changes: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition('=')
        if not equals or name not in kinds or name in _FLAGS:
            known = ', '.join(sorted(set(kinds) - _FLAGS))
            raise HbvlaError(f'{flag} {setting}: {method} takes NAME=VALUE of {known}')
        try:
            changes[name] = _parse(kinds[name], text)
        except ValueError as error:
            raise HbvlaError(f'{flag} {setting}: {error}') from error
    try:
        return dataclasses.replace(options, **changes)  # type: ignore[type-var]
    except ValueError as error:  # what a method's own __post_init__ refuses
        raise HbvlaError(f'{flag}: {error}') from error


def _parse(kind: Any, text: str) -> Any:
    """A text as a value of a type; ValueError with the fix where it is none."""
    if typing.get_origin(kind) is typing.Literal:
        choices = {str(choice): choice for choice in typing.get_args(kind)}
        if text not in choices:
            raise ValueError(f'use one of {", ".join(choices)}')
        return choices[text]
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        if text == 'none':
            return None
        return _parse(next(k for k in typing.get_args(kind) if k is not type(None)), text)
    if kind is bool:
        if text not in ('true', 'false'):
            raise ValueError('use true or false')
        return text == 'true'
    try:
        return kind(text)
    except ValueError:
        what = 'whole number' if kind is int else 'number'
        raise ValueError(f'use a {what}') from None


def check_seed(seed: int) -> None:
    """Refuse a seed that one of the random generators would not take.

    Raises:
        HbvlaError: negative, or beyond 63 bits.
    """
    if not 0 <= seed < _SEEDS:
        raise HbvlaError(f'seed {seed}: must be 0 to 2^63 - 1')
