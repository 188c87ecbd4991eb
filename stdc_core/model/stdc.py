# SPDX-License-Identifier: Apache-2.0
"""Define the STDC backbones: Short-Term Dense Concatenate networks (paper section 3.1, Tables 1 and 2, Figure 3)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

# Number of STDC modules in stages 3, 4 and 5 (Table 2).
STAGE_BLOCKS = {'stdc1': (2, 2, 2), 'stdc2': (4, 5, 3)}


class ConvBNReLU(nn.Module):
    """ConvX of the paper: convolution without bias, batch norm and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map features ``[N, in_channels, H, W]`` to ``[N, out_channels, ceil(H / stride), ceil(W / stride)]``."""
        return self.relu(self.bn(self.conv(x)))


class STDCModule(nn.Module):
    """Short-Term Dense Concatenate module of four blocks (Figure 3b and 3c, Table 1, Equation 3).

    Each block has half as many filters as the one before it; the last one has as many. The outputs of all blocks are
    concatenated: ``M/2 + M/4 + M/8 + M/8 = M`` channels with receptive fields of 1, 3, 5 and 7 pixels.

    Args:
        in_channels: Number of channels N of the input.
        out_channels: Number of channels M of the output, a multiple of 8.
        stride: 1, or 2 to halve the resolution. Stride 2 has a depthwise convolution before block 2 and average
            pooling after block 1.

    Raises:
        ValueError: ``out_channels`` or ``stride`` has another value.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1):
        super().__init__()
        if out_channels % 8 or stride not in (1, 2):
            raise ValueError(
                f'expected out_channels a multiple of 8 and stride 1 or 2, not {out_channels} and {stride}'
            )
        half = out_channels // 2
        self.blocks = nn.ModuleList(
            [
                ConvBNReLU(in_channels, half, kernel=1),
                ConvBNReLU(half, half // 2),
                ConvBNReLU(half // 2, half // 4),
                ConvBNReLU(half // 4, half // 4),
            ]
        )
        self.stride = stride
        if stride == 2:
            self.downsample = nn.Sequential(
                nn.Conv2d(half, half, 3, stride=2, padding=1, groups=half, bias=False),
                nn.BatchNorm2d(half),
            )
            self.pool = nn.AvgPool2d(3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map features ``[N, in_channels, H, W]`` to ``[N, out_channels, ceil(H / stride), ceil(W / stride)]``."""
        first = self.blocks[0](x)
        second = self.blocks[1](self.downsample(first) if self.stride == 2 else first)
        third = self.blocks[2](second)
        fourth = self.blocks[3](third)
        if self.stride == 2:
            first = self.pool(first)
        return torch.cat([first, second, third, fourth], dim=1)


def _stage(in_channels: int, out_channels: int, blocks: int) -> nn.Sequential:
    """Return one of stages 3 to 5: a module of stride 2, then ``blocks - 1`` modules of stride 1 (Figure 3a)."""
    modules = [STDCModule(in_channels, out_channels, stride=2)]
    modules += [STDCModule(out_channels, out_channels) for _ in range(blocks - 1)]
    return nn.Sequential(*modules)


class Backbone(nn.Module):
    """Base class of the backbones that the STDC decoder takes.

    Attributes:
        name: Name of the backbone, such as ``'stdc1'``.
        channels: Number of channels of the feature at each stride. There are features at strides 8, 16 and 32 at least.
    """

    name: str
    channels: Mapping[int, int]

    def forward(self, image: Tensor) -> dict[int, Tensor]:
        """Return features by stride: ``[N, 3, H, W]`` to ``{s: [N, channels[s], ceil(H/s), ceil(W/s)]}``."""
        raise NotImplementedError


class STDCBackbone(Backbone):
    """Stages 1 to 5 of STDC1 or STDC2 (Table 2).

    Args:
        name: ``'stdc1'`` or ``'stdc2'``.

    Attributes:
        channels: Number of channels of the features at each stride.

    Raises:
        ValueError: The name is another one.
    """

    channels = MappingProxyType({2: 32, 4: 64, 8: 256, 16: 512, 32: 1024})

    def __init__(self, name: str = 'stdc1'):
        super().__init__()
        if name not in STAGE_BLOCKS:
            raise ValueError(f'unknown backbone {name!r}, expected one of {", ".join(STAGE_BLOCKS)}')
        self.name = name
        blocks = STAGE_BLOCKS[name]
        self.stage1 = ConvBNReLU(3, 32, stride=2)
        self.stage2 = ConvBNReLU(32, 64, stride=2)
        self.stage3 = _stage(64, 256, blocks[0])
        self.stage4 = _stage(256, 512, blocks[1])
        self.stage5 = _stage(512, 1024, blocks[2])

    def forward(self, image: Tensor) -> dict[int, Tensor]:
        """Return the features of an image.

        Args:
            image: Normalised RGB, float ``[N, 3, H, W]``.

        Returns:
            Features at each stride s of 2, 4, 8, 16 and 32: ``[N, channels[s], ceil(H/s), ceil(W/s)]``.
        """
        x2 = self.stage1(image)
        x4 = self.stage2(x2)
        x8 = self.stage3(x4)
        x16 = self.stage4(x8)
        x32 = self.stage5(x16)
        return {2: x2, 4: x4, 8: x8, 16: x16, 32: x32}


class STDCClassifier(nn.Module):
    """Backbone with the ImageNet head of Table 2: 1 x 1 convolution, global pooling and two linear layers.

    Args:
        name: ``'stdc1'`` or ``'stdc2'``.
        num_classes: Number of classes, 1000 for ImageNet.
        dropout: Probability of dropping a feature before the last layer.
    """

    def __init__(self, name: str = 'stdc1', num_classes: int = 1000, dropout: float = 0.2):
        super().__init__()
        self.backbone = STDCBackbone(name)
        self.conv_last = ConvBNReLU(1024, 1024, kernel=1)
        self.fc1 = nn.Linear(1024, 1024, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(1024, num_classes, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        """Return the class logits ``[N, num_classes]`` of normalised RGB images ``[N, 3, H, W]``."""
        x = self.conv_last(self.backbone(image)[32]).square()
        x = x.mean(dim=(2, 3))
        return self.fc2(self.dropout(self.relu(self.fc1(x))))
