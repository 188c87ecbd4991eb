"""STDC-Seg: training, export and inference, without ROS."""

import os

# ONNX Runtime 1.32 records from its import on, in the user's home folder, what it is used for.
os.environ.setdefault('ORT_DISABLE_TELEMETRY', '1')
