# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Reading YAML without forgiveness: every key is known, present, of its type and used."""

from __future__ import annotations

import math
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from hbvla_ros.errors import HbvlaError


class _UniqueKeyLoader(yaml.SafeLoader):
    """A safe loader that refuses a key written twice, which YAML would silently overwrite."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                line = key_node.start_mark.line + 1
                raise HbvlaError(f'key {key!r} is written twice (line {line}); keep one')
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Section:
    """Read a YAML file as its top section.

    Raises:
        HbvlaError: no such file, not YAML, a key written twice, or not a mapping.
    """
    try:
        content = yaml.load(path.read_text(encoding='utf-8'), Loader=_UniqueKeyLoader)
    except OSError as error:
        raise HbvlaError(f'{path}: cannot be read: {error.strerror}') from error
    except yaml.YAMLError as error:
        raise HbvlaError(f'{path}: not valid YAML: {error}') from error
    except (HbvlaError, UnicodeDecodeError) as error:
        raise HbvlaError(f'{path}: {error}') from error
    return Section(content, path)


class Section:
    """One mapping of the file; it hands each key out once and refuses what is left over."""

    def __init__(self, content: Any, path: Path, key: str = '') -> None:
        """Wrap a mapping; ``key`` is its own name in the file."""
        self._path, self._key = path, key
        if not isinstance(content, dict):
            raise self.error('', f'expected a mapping of keys, found {type(content).__name__}')
        self._content = dict(content)

    def error(self, key: str, problem: str) -> HbvlaError:
        """The one-line error for a key of this section."""
        name = '.'.join(part for part in (self._key, key) if part)
        return HbvlaError(
            f'{self._path}: {name}: {problem}' if name else f'{self._path}: {problem}'
        )

    def take(self, key: str) -> Any:
        """The raw value of a required key."""
        if key not in self._content:
            raise self.error(key, 'missing; add it')
        return self._content.pop(key)

    def finish(self) -> None:
        """Refuse keys that nobody asked for: a typing error must not pass as a default."""
        if self._content:
            raise self.error(str(next(iter(self._content))), 'unknown key; remove it')

    def has(self, key: str) -> bool:
        """Whether an optional key is there."""
        return key in self._content

    def section(self, key: str) -> Section:
        """A nested mapping."""
        return Section(self.take(key), self._path, self._name(key))

    def sections(self, key: str, empty: bool = False) -> list[Section]:
        """A list of mappings, at least one unless ``empty`` allows none."""
        if empty and self._content.get(key) == []:
            del self._content[key]
            return []
        entries = self._list(key)
        return [Section(e, self._path, f'{self._name(key)}[{i}]') for i, e in enumerate(entries)]

    def text(self, key: str) -> str:
        """A string that is not empty."""
        value = self.take(key)
        if not isinstance(value, str) or not value.strip():
            raise self.error(key, f'expected text, found {value!r}')
        return value

    def choice(self, key: str, allowed: tuple[str, ...]) -> str:
        """One of a few words."""
        value = self.text(key)
        if value not in allowed:
            raise self.error(key, f'{value!r} is not one of {", ".join(allowed)}')
        return value

    def number(self, key: str, low: float = -math.inf, high: float = math.inf) -> float:
        """A finite number within ``low`` and ``high``."""
        return self._number(key, self.take(key), low, high)

    def integer(self, key: str) -> int:
        """A whole number."""
        value = self.take(key)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.error(key, f'expected a whole number, found {value!r}')
        return value

    def numbers(self, key: str, count: int) -> list[float]:
        """A list of exactly ``count`` finite numbers."""
        entries = self._list(key)
        if len(entries) != count:
            raise self.error(key, f'expected {count} numbers, found {len(entries)}')
        return [self._number(f'{key}[{i}]', e) for i, e in enumerate(entries)]

    def texts(self, key: str) -> list[str]:
        """A list of different strings, at least one."""
        entries = self._list(key)
        for index, entry in enumerate(entries):
            if not isinstance(entry, str) or not entry.strip():
                raise self.error(f'{key}[{index}]', f'expected text, found {entry!r}')
            if entry in entries[:index]:
                raise self.error(f'{key}[{index}]', f'duplicate {entry!r}; each may appear once')
        return list(entries)

    def _name(self, key: str) -> str:
        return f'{self._key}.{key}' if self._key else key

    def _list(self, key: str) -> list[Any]:
        value = self.take(key)
        if not isinstance(value, list) or not value:
            raise self.error(key, f'expected a list with entries, found {value!r}')
        return value

    def _number(
        self, key: str, value: Any, low: float = -math.inf, high: float = math.inf
    ) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.error(key, f'expected a number, found {value!r}')
        if not math.isfinite(value) or not low <= value <= high:
            raise self.error(key, f'{value} is outside {low} to {high}')
        return float(value)
