"""Semantic segmentation for ROS 2: the node, image messages, parameters, diagnostics and bags."""
