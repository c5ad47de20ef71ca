# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The deployed checkpoint: quantized layers, reader, writer, byte accounting, PackedLinear."""
