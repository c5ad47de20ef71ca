# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Options of ``hbvla``: every point that the paper leaves open is one of them (spec section 2)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from hbvla_ros.quantization.binary.grouping import GroupRule, Partition, Scale
from hbvla_ros.quantization.binary.saliency import Norm
from hbvla_ros.quantization.options import MethodOptions


@dataclass(frozen=True)
class HbvlaOptions(MethodOptions):
    """Options of ``hbvla``; the defaults follow the text of the paper.

    Attributes:
        block_size: columns of a block, even (A-25).
        candidates: columns of a block that may be salient (A-7).
        salient_search: how many of them are: 'score' binarizes the matrix of scores, as the
            published code does; 'error' takes the count with the least real error, 0 included
            (A-8); 'all' takes all candidates, as 'error' nearly always does where a salient column
            is coded well whatever it costs; 'none' has no salient columns.
        salient_norm: norm of the scores by which columns are ranked.
        saliency: what a score divides by, each squared: 'conditional' the diagonal of the factor U
            of the inverse Hessian, as the code does; 'inverse' that of the inverse itself, as the
            text has it (A-6).
        salient_code: 'haar_residual' as published; 'planes' is two residual sign planes a row;
            'int8' whole columns of 8 bits with a scale each (A-15).
        salient_shared_mean: one mean of both groups in the salient part, too (A-15).
        nonsalient: 'fill' puts averages of their neighbours in the place of salient columns and
            codes the residual; 'drop' leaves them out (A-9).
        norm: norm of the permutation, visiting order and distance (A-11, Table 3), and of
            ``column_sort``.
        perm: where Algorithm 1 runs (A-10): 'none', in every 'block', or once over the whole
            'layer' before its blocks are cut.
        perm_source: a block's permutation looks at the weights as 'compensated' by the errors of
            the blocks before, or as they were ('original') (A-10).
        chaining: order the pairs by their ends; of no use inside one block (A-13).
        column_sort: sort the columns of the layer by falling norm before blocks are cut.
        scale: levels of a group: 'rms' as the code, or 'mean_abs', the least squared error (A-34).
        centred: threshold on the distance from the mean, not from zero as in the code (A-34).
        shared_mean: one mean of both groups of a row and band.
        partition: a threshold for each row and band, or one for all rows ('global').
        feedback: errors of a block over the diagonal of U, as in the code ('diagonal'), through the
            whole block of U ('exact'), or not at all ('none') (A-34).
        rectified_feedback: the feedback, too, uses the Hessian of weighted tokens where there is
            one, not only the saliency (A-22).
        refits: rounds of refitting a block's means, scales, groups and signs under its Hessian,
            which the paper does not do; needs ``nonsalient='drop'``.
    """

    block_size: int = 128
    candidates: int = 40
    salient_search: Literal['score', 'error', 'all', 'none'] = 'score'
    salient_norm: Norm = 'l2'
    saliency: Literal['conditional', 'inverse'] = 'conditional'
    salient_code: Literal['haar_residual', 'planes', 'int8'] = 'haar_residual'
    salient_shared_mean: bool = False
    nonsalient: Literal['fill', 'drop'] = 'fill'
    norm: Norm = 'l2'
    perm: Literal['none', 'block', 'layer'] = 'block'
    perm_source: Literal['compensated', 'original'] = 'compensated'
    chaining: bool = True
    column_sort: bool = False
    scale: Scale = 'rms'
    centred: bool = False
    shared_mean: bool = True
    partition: Partition = 'row'
    feedback: Literal['diagonal', 'exact', 'none'] = 'diagonal'
    rectified_feedback: bool = True
    refits: int = 0

    def __post_init__(self) -> None:
        if self.block_size < 2 or self.block_size % 2:
            raise ValueError(f'block_size={self.block_size}: use an even number of columns')
        if self.candidates < 2:
            raise ValueError(f'candidates={self.candidates}: use 2 or more')
        if self.refits < 0:
            raise ValueError(f'refits={self.refits}: use 0 or more')
        if self.nonsalient == 'fill' and self.salient_code == 'int8':
            raise ValueError('salient_code=int8 holds whole columns: set nonsalient=drop too')
        if self.nonsalient == 'fill' and self.refits:
            raise ValueError(f'refits={self.refits}: set nonsalient=drop too')

    @property
    def base_rule(self) -> GroupRule:
        """How the groups of the non-salient part are found."""
        return GroupRule(self.shared_mean, self.scale, self.partition, self.centred)

    @property
    def salient_rule(self) -> GroupRule:
        """How the groups of the salient part are found."""
        return GroupRule(self.salient_shared_mean, self.scale, self.partition, self.centred)


# Every recommendation of the spec. On sorted columns the permutation neither helps nor hurts; it
# stays for what the method is.
_RECOMMENDED = HbvlaOptions(
    candidates=8,
    salient_search='all',
    salient_code='int8',
    nonsalient='drop',
    perm='block',
    column_sort=True,
    scale='mean_abs',
    centred=True,
    feedback='exact',
)
# What measures best: the refits, which are ours, take a further quarter off the output error of the
# structured synthetic layers and four fifths off that of the layers of a trained network.
_BEST = dataclasses.replace(_RECOMMENDED, refits=2)

PRESETS = {
    'default': _BEST,
    'best': _BEST,
    'recommended': _RECOMMENDED,
    'parity': HbvlaOptions(),
}
