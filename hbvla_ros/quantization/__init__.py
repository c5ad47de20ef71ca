# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Offline quantization: methods, registry, the layer-by-layer pipeline."""
