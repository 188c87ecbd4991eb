# SPDX-License-Identifier: Apache-2.0
"""Change ONNX graphs: fold constants, cut out the network for the GPU, and prepare quantised graphs.

May import ``stdc_core.inference.input_scale``.
"""
