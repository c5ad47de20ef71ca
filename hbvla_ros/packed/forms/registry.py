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


def layer_from_parts(
    name: str, form: str, options: Mapping[str, Any], parts: Mapping[str, Tensor]
) -> QuantizedLayer:
    """Put a stored layer together again and check it.

    Args:
        name: module name, for the message.
        form: name of the form.
        options: what ``options()`` of the layer gave.
        parts: what ``tensors()`` of the layer gave.

    Raises:
        HbvlaError: unknown form, a tensor missing, too many or of the wrong shape or dtype.
    """
    if form not in FORMS:
        known = ', '.join(FORMS)
        raise HbvlaError(f'{name}: form {form!r} is unknown, this release reads {known}')
    try:
        layer = FORMS[form].from_parts(dict(options), dict(parts))
    except (KeyError, TypeError, ValueError) as error:
        raise HbvlaError(
            f'{name}: its tensors do not make a {form} layer ({error}); quantize again'
        ) from error
    layer.check(name)
    return layer
