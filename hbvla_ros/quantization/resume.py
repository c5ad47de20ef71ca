# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The work folder: finished layers of a run, so that an interrupted one can go on."""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from hbvla_ros.errors import HbvlaError
from hbvla_ros.packed.forms.registry import layer_from_parts
from hbvla_ros.packed.layer import QuantizedLayer
from hbvla_ros.packed.manifest import LayerEntry

_REQUEST = 'request.json'
_IMPORTANCE = 'importance.'
# What a full or failing disk raises; such a run is worth going on with.
_DISK_ERRORS = (OSError, SafetensorError)


def work_path(out: Path) -> Path:
    """Where the work folder of an output folder lies: beside it."""
    out = Path(os.path.abspath(out))
    return out.with_name(f'{out.name}.partial')


@dataclass(frozen=True)
class FinishedLayer:
    """What is kept of a layer besides its tensors.

    Attributes:
        entry: its entry in the manifest.
        saliency: spectrum of its column saliency, see the report; None without calibration.
    """

    entry: LayerEntry
    saliency: list[float] | None = None


class WorkFolder:
    """Finished layers and intermediate results, each in a file that is complete or not there.

    Attributes:
        path: the folder.
        finished: layers by name.
        keep_on_error: bad input found from now on does not make the finished layers useless.
    """

    def __init__(self, path: Path) -> None:
        """Use :func:`work_folder`."""
        self.path = path
        self.finished: dict[str, FinishedLayer] = {}
        self.keep_on_error = False
        self._lock: BinaryIO | None = None
        self._parents = [parent for parent in path.parents if not parent.exists()]

    def create(self, description: Mapping[str, Any]) -> None:
        """Make the folder, for a run that the description tells from others."""
        self.path.mkdir(parents=True)
        self._write_json(_REQUEST, description)
        self.lock()

    def lock(self) -> None:
        """Keep other runs away until this process ends; does nothing where there is no folder.

        Raises:
            HbvlaError: another run is at work in it.
        """
        try:
            self._lock = (self.path / _REQUEST).open('rb')
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return
        except BlockingIOError as error:
            raise HbvlaError(
                f'{self.path}: another run is at work there; wait for it or choose another --out'
            ) from error

    def read(self, description: Mapping[str, Any]) -> None:
        """Take over what is finished.

        Raises:
            HbvlaError: it belongs to another request.
        """
        try:
            found = json.loads((self.path / _REQUEST).read_text(encoding='utf-8'))
        except (OSError, ValueError) as error:
            raise HbvlaError(
                f'{self.path}: its {_REQUEST} is not readable; add --force to begin anew'
            ) from error
        # As it would have been read back: tuples are lists there.
        other = _differences(found, json.loads(json.dumps(description)))
        if other:
            raise HbvlaError(
                f'{self.path}: was begun with other {", ".join(other)}; give the same again, or '
                'add --force instead of --resume to begin anew'
            )
        for path in sorted(self.path.glob('*.layer.json')):
            self._take_over(path)

    def save_layer(
        self,
        name: str,
        layer: QuantizedLayer,
        finished: FinishedLayer,
        importance: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Keep a finished layer.

        Args:
            name: of the layer.
            layer: the layer itself.
            finished: its figures.
            importance: token weights of single frames, by a name of their own.
        """
        tensors = dict(layer.tensors())
        tensors.update({_IMPORTANCE + key: value for key, value in (importance or {}).items()})
        digest = self._write_tensors(f'{name}.layer.safetensors', tensors)
        figures = {**dataclasses.asdict(finished), 'sha256': digest}
        self._write_json(f'{name}.layer.json', figures)
        self.finished[name] = finished

    def layer(self, name: str, device: torch.device | str = 'cpu') -> QuantizedLayer:
        """A finished layer, from its file."""
        entry = self.finished[name].entry
        tensors = self._read_tensors(f'{name}.layer.safetensors')
        parts = {key: tensors[key].to(device) for key in entry.parts}
        return layer_from_parts(name, entry.form, entry.form_options, parts)

    def importance(self, name: str) -> dict[str, Tensor]:
        """Token weights that were kept with a layer."""
        tensors = self._read_tensors(f'{name}.layer.safetensors')
        return {k[len(_IMPORTANCE) :]: v for k, v in tensors.items() if k.startswith(_IMPORTANCE)}

    def tensors(self, name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Tensors of an earlier stage: those that are kept, or new ones, which are then kept."""
        if not (self.path / f'{name}.safetensors').is_file():
            self._write_tensors(f'{name}.safetensors', make())
        return self._read_tensors(f'{name}.safetensors')

    def values(self, name: str, make: Callable[[], Any]) -> Any:
        """Plain values of an earlier stage, like :meth:`tensors`."""
        path = self.path / f'{name}.json'
        if not path.is_file():
            self._write_json(path.name, make())
        return json.loads(path.read_text(encoding='utf-8'))

    @property
    def empty(self) -> bool:
        """Nothing is in it that took any work."""
        return not self.path.is_dir() or {p.name for p in self.path.iterdir()} <= {_REQUEST}

    def remove(self) -> None:
        """Remove it, and folders above that were made for it and are empty."""
        shutil.rmtree(self.path, ignore_errors=True)
        for parent in self._parents:
            try:
                parent.rmdir()
            except OSError:
                return

    def _take_over(self, path: Path) -> None:
        """One layer, if its files are as they were written; else it is quantized again."""
        try:
            figures = json.loads(path.read_text(encoding='utf-8'))
            digest = figures.pop('sha256')
            figures['entry'] = LayerEntry(**figures['entry'])
            if _digest(path.with_suffix('.safetensors')) == digest:
                self.finished[path.name.removesuffix('.layer.json')] = FinishedLayer(**figures)
        except (OSError, ValueError, KeyError, TypeError):
            return

    def _write_tensors(self, name: str, tensors: Mapping[str, Tensor]) -> str:
        """Write a file of tensors; returns its digest."""
        path = self.path / name
        temporary = path.with_name(f'{name}.tmp')
        copies = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
        try:
            save_file(copies, temporary)
            digest = _digest(temporary)
            os.replace(temporary, path)
        except _DISK_ERRORS as error:
            temporary.unlink(missing_ok=True)
            raise HbvlaError(f'{path}: cannot write it: {error}') from error
        return digest

    def _read_tensors(self, name: str) -> dict[str, Tensor]:
        try:
            return load_file(self.path / name)
        except _DISK_ERRORS as error:
            raise HbvlaError(f'{self.path / name}: cannot read it: {error}') from error

    def _write_json(self, name: str, values: Any) -> None:
        path = self.path / name
        temporary = path.with_name(f'{name}.tmp')
        temporary.write_text(json.dumps(values), encoding='utf-8')
        os.replace(temporary, path)


def check_work_folder(out: Path, resume: bool, force: bool) -> None:
    """Refuse a work folder of an earlier run unless it is said what to do with it.

    Raises:
        HbvlaError: there is one; names the two ways on.
    """
    path = work_path(out)
    if os.path.lexists(path) and not resume and not force:
        raise HbvlaError(
            f'{path}: is left of an interrupted run; add --resume to go on with it, or '
            '--force to begin anew'
        )


@contextmanager
def work_folder(
    out: Path, description: Mapping[str, Any], resume: bool, force: bool
) -> Iterator[WorkFolder]:
    """The work folder of a run: gone when the run succeeds or its input is bad.

    A full disk, Ctrl-C and everything unforeseen leave it, if there is anything in it.

    Args:
        out: folder that the run will write.
        description: plain values that decide the result; a run with others cannot go on here.
        resume: go on with what is there; if nothing is, begin.
        force: throw away what is there.

    Raises:
        HbvlaError: one is there already and neither ``resume`` nor ``force`` says what to do, it
            belongs to another request, or the disk refuses.
    """
    check_work_folder(out, resume, force)
    work = WorkFolder(work_path(out))
    work.lock()
    if resume and work.path.is_dir():
        work.read(description)
    else:
        shutil.rmtree(work.path, ignore_errors=True)
        work.create(description)
    try:
        yield work
    except BaseException as error:
        bad_input = isinstance(error, HbvlaError) and not _caused_by_disk(error)
        if work.empty or (bad_input and not work.keep_on_error):
            work.remove()
        elif _caused_by_disk(error):
            raise HbvlaError(
                f'{error}; {len(work.finished)} finished layers stay in {work.path}, '
                'go on with --resume'
            ) from error
        raise
    work.remove()


def _caused_by_disk(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, _DISK_ERRORS):
            return True
        error = error.__cause__
    return False


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Names of what differs, one level deep."""
    names = []
    for key in sorted({*found, *wanted}):
        one, other = found.get(key), wanted.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            inner = sorted(k for k in {*one, *other} if one.get(k) != other.get(k))
            names += [f'{key} ({", ".join(inner)})'] if inner else []
        elif one != other:
            names.append(key)
    return names


def _digest(path: Path) -> str:
    with path.open('rb') as stream:
        digest = hashlib.sha256()
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
