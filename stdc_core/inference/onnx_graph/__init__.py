# SPDX-License-Identifier: Apache-2.0
"""Work on ONNX graphs: constant folding, splitting for the GPU and quantised graphs.

May import ``stdc_core.inference.input_scale``.
"""
