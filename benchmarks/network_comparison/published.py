# SPDX-License-Identifier: Apache-2.0
"""Name the networks that are compared, and the numbers that the papers give for them."""

from __future__ import annotations

from dataclasses import dataclass

#: Networks, and how the papers call them. STDC2 is the first: all others are compared with it.
NETWORKS = {
    'stdc2': 'STDC2',
    'stdc1': 'STDC1',
    'bisenetv1': 'BiSeNetV1 (ResNet-18)',
    'bisenetv2': 'BiSeNetV2',
    'timm/ghostnet_100': 'GhostNet',
    'timm/mobilenetv3_large_100': 'MobileNetV3',
    'timm/efficientnet_b0': 'EfficientNet-B0',
    'timm/mobilenetv2_100': 'MobileNetV2',
    'timm/resnet18': 'ResNet-18',
    'timm/resnet50': 'ResNet-50',
    'timm/densenet121': 'DenseNet-121',
}

#: Networks of this package that the paper proposes.
STDC = ('stdc1', 'stdc2')

#: Input scales of an image of 1024 x 2048: the network sees 512 x 1024 (Seg50) and 768 x 1536 (Seg75).
SCALES = (0.5, 0.75)


@dataclass(frozen=True)
class PublishedNetwork:
    """Numbers of a segmentation network on Cityscapes (STDC paper, Tables 3 and 6).

    The speed is that of a GTX 1080 Ti. That of BiSeNetV1 is from its own paper, on a Titan XP.

    Args:
        fps: Frames per second.
        miou: mIoU on val, percent.
    """

    fps: float
    miou: float


#: Published numbers by network and input scale.
PUBLISHED_NETWORKS = {
    ('stdc1', 0.5): PublishedNetwork(250.4, 72.2),
    ('stdc2', 0.5): PublishedNetwork(188.6, 74.2),
    ('stdc1', 0.75): PublishedNetwork(126.7, 74.5),
    ('stdc2', 0.75): PublishedNetwork(97.0, 77.0),
    ('bisenetv1', 0.75): PublishedNetwork(65.5, 74.8),
    ('bisenetv2', 0.5): PublishedNetwork(156.0, 73.4),
    ('timm/ghostnet_100', 0.5): PublishedNetwork(135.0, 67.8),
    ('timm/mobilenetv3_large_100', 0.5): PublishedNetwork(148.3, 70.1),
    ('timm/efficientnet_b0', 0.5): PublishedNetwork(99.9, 72.2),
}


@dataclass(frozen=True)
class PublishedClassifier:
    """Numbers of an ImageNet classifier (STDC paper, Table 5).

    Args:
        parameters: Number of parameters in millions.
        multiply_adds: Number of multiply-adds in millions.
        fps: Images of 224 x 224 per second on a GTX 1080 Ti.
        top1: Top-1 accuracy on ImageNet, percent.
    """

    parameters: float
    multiply_adds: int
    fps: float
    top1: float


#: Published numbers of classifiers by the names of this package and of timm.
PUBLISHED_CLASSIFIERS = {
    'stdc1': PublishedClassifier(8.4, 813, 1289.0, 73.9),
    'stdc2': PublishedClassifier(12.5, 1446, 813.6, 76.4),
    'timm/resnet18': PublishedClassifier(11.2, 1800, 1058.7, 69.0),
    'timm/resnet50': PublishedClassifier(23.5, 3800, 378.7, 75.3),
    'timm/densenet121': PublishedClassifier(9.9, 2882, 363.6, 75.0),
    'timm/ghostnet_100': PublishedClassifier(5.2, 141, 699.1, 73.9),
    'timm/mobilenetv2_100': PublishedClassifier(3.4, 300, 998.8, 72.0),
    'timm/mobilenetv3_large_100': PublishedClassifier(5.4, 219, 661.2, 75.2),
    'timm/efficientnet_b0': PublishedClassifier(5.3, 390, 443.0, 76.3),
}
