# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""All forms by name: puts stored layers together again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from hbvla_ros.errors import HbvlaError
from hbvla_ros.packed.forms.factored import FactoredLayer
from hbvla_ros.packed.forms.grouped import GroupedLayer
from hbvla_ros.packed.forms.sign_planes import SignPlaneLayer
from hbvla_ros.packed.layer import QuantizedLayer

FORMS = {form.form: form for form in (SignPlaneLayer, FactoredLayer, GroupedLayer)}


def build_layer(
    name: str, form: str, options: Mapping[str, Any], parts: Mapping[str, Tensor]
) -> QuantizedLayer:
    """Put a stored layer together again; shapes and values are not looked at.

    Args:
        name: module name, for the message.
        form: name of the form.
        options: what ``options()`` of the layer gave.
        parts: what ``tensors()`` of the layer gave.

    Raises:
        HbvlaError: unknown form; a tensor or option missing or too many.
    """
    if form not in FORMS:
        known = ', '.join(FORMS)
        raise HbvlaError(f'{name}: form {form!r} is unknown, this release reads {known}')
    try:
        return FORMS[form].from_parts(dict(options), dict(parts))
    except (AttributeError, TypeError, ValueError) as error:  # options of another type, too
        raise HbvlaError(
            f'{name}: its tensors do not make a {form} layer ({error}); quantize again'
        ) from error


def layer_from_parts(
    name: str, form: str, options: Mapping[str, Any], parts: Mapping[str, Tensor]
) -> QuantizedLayer:
    """Put a stored layer together again and check all of it.

    Args:
        name: see :func:`build_layer`.
        form: see :func:`build_layer`.
        options: see :func:`build_layer`.
        parts: see :func:`build_layer`.

    Raises:
        HbvlaError: unknown form; a tensor or option missing, too many, of the wrong shape or dtype
            or with values that cannot be.
    """
    layer = build_layer(name, form, options, parts)
    layer.check(name)
    return layer
