# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Random layers of every form."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from hbvla_ros.packed.bits import pack_signs
from hbvla_ros.packed.forms.factored import FactoredLayer
from hbvla_ros.packed.forms.grouped import GroupedLayer
from hbvla_ros.packed.forms.grouped_part import GroupedPart
from hbvla_ros.packed.forms.sign_planes import SignPlaneLayer
from hbvla_ros.packed.layer import QuantizedLayer, store_index, store_scale
from hbvla_ros.packed.log_scales import store_log_scale

# Products of planes that the methods use, and one that leaves planes of three out.
PRODUCTS = ((0, 1), (0, 1, 2), (0, 1, 2, 3), (0, 1, 5, 2, 6), (1,), (7,))


class LayerMaker:
    """Makes layers of random content; same arguments, same layer."""

    forms = ('sign_planes', 'factored', 'grouped')

    def any(self, form: str, rows: int, columns: int, seed: int) -> QuantizedLayer:
        """A layer of a form with random options."""
        generator = torch.Generator().manual_seed(seed)

        def below(count: int) -> int:
            return int(torch.randint(count, (1,), generator=generator))

        options: dict[str, Any] = {
            'hadamard': (1, 2, 16, 128)[below(4)],
            'permuted': bool(below(2)),
        }
        if form == 'grouped':
            parts = 1 + below(2)
            return self.grouped(rows, columns, seed, parts, panel=below(2) * (1 + columns // 3))
        options.update(scaled=bool(below(2)), log=bool(below(2)))
        if form == 'factored':
            return self.factored(rows, columns, 1 + below(20), seed, **options)
        return self.sign_planes(rows, columns, 1 + below(3), seed, tiled=bool(below(2)), **options)

    def sign_planes(
        self,
        rows: int,
        columns: int,
        planes: int = 1,
        seed: int = 0,
        hadamard: int = 128,
        permuted: bool = False,
        scaled: bool = True,
        log: bool = False,
        tiled: bool = False,
    ) -> SignPlaneLayer:
        """Sign planes; ``tiled`` gives each tile of 128 rows 1 to ``planes`` of them."""
        generator = torch.Generator().manual_seed(seed)
        scales, span = self._scale(generator, log, planes, rows)
        column_scale, column_span = self._column_scale(generator, columns, scaled, log)
        signs = pack_signs(self._normal(generator, planes, rows, columns))
        rest: dict[str, Any] = {
            'hadamard': hadamard,
            'column_scale': column_scale,
            'permutation': self._order(generator, columns, columns) if permuted else None,
            'row_scales_span': span,
            'column_scale_span': column_span,
        }
        if not tiled:
            return SignPlaneLayer.uniform(columns, signs, scales, **rest)
        counts = 1 + torch.randint(planes, (-(-rows // 128),), generator=generator)
        return SignPlaneLayer.tiled(columns, signs, scales, counts, **rest)

    def factored(
        self,
        rows: int,
        columns: int,
        width: int,
        seed: int = 0,
        hadamard: int = 1,
        permuted: bool = False,
        scaled: bool = True,
        log: bool = False,
    ) -> FactoredLayer:
        """Two sign planes, one after the other."""
        generator = torch.Generator().manual_seed(seed)
        row_scales, row_span = self._scale(generator, log, rows)
        inner_scales, inner_span = self._scale(generator, log, width)
        column_scale, column_span = self._column_scale(generator, columns, scaled, log)
        return FactoredLayer(
            columns,
            outer=pack_signs(self._normal(generator, rows, width)),
            inner=pack_signs(self._normal(generator, width, columns)),
            row_scales=row_scales,
            inner_scales=inner_scales,
            hadamard=hadamard,
            column_scale=column_scale,
            permutation=self._order(generator, columns, columns) if permuted else None,
            row_scales_span=row_span,
            inner_scales_span=inner_span,
            column_scale_span=column_span,
        )

    def grouped(
        self, rows: int, columns: int, seed: int = 0, parts: int = 2, panel: int = 0
    ) -> GroupedLayer:
        """Parts of random products, runs and columns; ``panel`` columns in int8."""
        generator = torch.Generator().manual_seed(seed)
        named = {
            ('base', 'salient', 'salient_more')[i]: self.part(rows, columns, generator)
            for i in range(parts)
        }
        if not panel:
            return GroupedLayer(columns, named, 1.25)
        return GroupedLayer(
            columns,
            named,
            1.25,
            panel=torch.randint(-127, 128, (rows, panel), generator=generator).to(torch.int8),
            panel_scales=store_scale(0.01 * torch.rand(panel, generator=generator)),
            panel_columns=self._order(generator, columns, panel),
        )

    def part(self, rows: int, columns: int, generator: torch.Generator) -> GroupedPart:
        """A part with random options."""

        def below(count: int) -> int:
            return int(torch.randint(count, (1,), generator=generator))

        products = PRODUCTS[below(len(PRODUCTS))]
        planes = max(products).bit_length()
        width = columns if below(2) else 1 + below(columns)
        bands, hadamard, row_hadamard = 1 + below(2), (1, 2, 8)[below(3)], 1 + below(2)
        runs = self._runs(generator, width)
        shape = (len(products), rows, len(runs) * bands)
        return GroupedPart(
            columns,
            pack_signs(self._normal(generator, planes, rows, width)),
            products,
            store_scale(self._normal(generator, *shape)),
            store_index(runs, columns),
            bands,
            hadamard,
            row_hadamard,
            None if width == columns else self._order(generator, columns, width),
        )

    def _runs(self, generator: torch.Generator, width: int) -> Tensor:
        """(n,): lengths that add up to the width."""
        cuts = torch.randint(1, width + 1, (3,), generator=generator)
        ends = torch.cat([cuts, torch.tensor([width])]).unique()
        return torch.diff(ends, prepend=torch.zeros(1, dtype=ends.dtype))

    def _normal(self, generator: torch.Generator, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    def _scale(
        self, generator: torch.Generator, log: bool, *shape: int
    ) -> tuple[Tensor, Tensor | None]:
        """Scales of 8 bits with their span, or of 16 without."""
        values = 0.1 + torch.rand(*shape, generator=generator)
        return store_log_scale(values) if log else (store_scale(values), None)

    def _column_scale(
        self, generator: torch.Generator, columns: int, scaled: bool, log: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        if not scaled:
            return None, None
        scales, span = self._scale(generator, log, columns)
        if span is None:  # with random signs
            scales = scales * (torch.rand(columns, generator=generator) - 0.5).sign().to(scales)
        return scales, span

    def _order(self, generator: torch.Generator, columns: int, count: int) -> Tensor:
        return store_index(torch.randperm(columns, generator=generator)[:count], columns)


@pytest.fixture(scope='session')
def make() -> LayerMaker:
    """Maker of random layers."""
    return LayerMaker()
