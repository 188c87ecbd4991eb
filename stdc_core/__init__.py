"""STDC-Seg: training, export and inference, without ROS."""

import os

# ONNX Runtime 1.32 records from its import on what it is used for, in the user's home folder, to be sent to its makers.
os.environ.setdefault('ORT_DISABLE_TELEMETRY', '1')
