# SPDX-License-Identifier: Apache-2.0
"""TensorRT backend: engine builder and cache, CUDA, kernels and pipeline.

May import ``stdc_core.inference.onnx_graph`` and the modules beside this folder, but not ``segmenter``.
"""
