# SPDX-License-Identifier: Apache-2.0
"""BiSeNet V1 and V2, the networks that the STDC paper compares with, written from their papers.

V1: "BiSeNet: Bilateral Segmentation Network for Real-time Semantic Segmentation" (ECCV 2018), on ResNet-18. V2:
"BiSeNet V2: Bilateral Network with Guided Aggregation for Real-time Semantic Segmentation" (IJCV 2021).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stdc_core.model.segmentation import Head, SegmentationNetwork, SegmentationOutput, STDCSeg
from stdc_core.model.stdc import Backbone, ConvBNReLU


class BiSeNetV1(STDCSeg):
    """BiSeNet V1: a spatial path beside a ResNet-18 that supplies the context.

    STDC-Seg took its decoder (attention refinement, global context, feature fusion) from this network, so both are one
    class here. The decoder of V1 fuses the context with the spatial path, that of STDC-Seg with stage 3 of the
    backbone. The paper leaves open how the context is upsampled; here it is to the nearest pixel, as in STDC-Seg.

    Args:
        num_classes: Number of classes.
    """

    def __init__(self, num_classes: int = 19):
        super().__init__(TwoPaths(), num_classes, detail_strides=())
        self.head = Head(256, 64, num_classes)


class TwoPaths(Backbone):
    """Spatial path of V1 at stride 8, and the last two stages of ResNet-18 at strides 16 and 32.

    The spatial path is three convolutions of stride 2 (section 3.1). Their kernels and the 128 channels that follow are
    those of the authors' code.
    """

    name = 'bisenetv1'

    def __init__(self) -> None:
        super().__init__()
        self.channels = {8: 128, 16: 256, 32: 512}
        self.spatial = nn.Sequential(
            ConvBNReLU(3, 64, kernel=7, stride=2),
            ConvBNReLU(64, 64, stride=2),
            ConvBNReLU(64, 64, stride=2),
            ConvBNReLU(64, 128, kernel=1),
        )
        self.stem = nn.Sequential(ConvBNReLU(3, 64, kernel=7, stride=2), nn.MaxPool2d(3, stride=2, padding=1))
        self.layer1 = nn.Sequential(ResidualBlock(64, 64), ResidualBlock(64, 64))
        self.layer2 = nn.Sequential(ResidualBlock(64, 128, stride=2), ResidualBlock(128, 128))
        self.layer3 = nn.Sequential(ResidualBlock(128, 256, stride=2), ResidualBlock(256, 256))
        self.layer4 = nn.Sequential(ResidualBlock(256, 512, stride=2), ResidualBlock(512, 512))

    def forward(self, image: Tensor) -> dict[int, Tensor]:
        """Return the spatial path and the context at strides 16 and 32; see ``Backbone``."""
        context16 = self.layer3(self.layer2(self.layer1(self.stem(image))))
        return {8: self.spatial(image), 16: context16, 32: self.layer4(context16)}


class ResidualBlock(nn.Module):
    """Basic block of ResNet-18: two 3 x 3 convolutions and a shortcut. ``[N, in, H, W]`` to ``[N, out, H', W']``."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1):
        super().__init__()
        self.first = ConvBNReLU(in_channels, out_channels, stride=stride)
        self.second = _conv_bn(out_channels, out_channels)
        same = stride == 1 and in_channels == out_channels
        self.shortcut = nn.Identity() if same else _conv_bn(in_channels, out_channels, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return the activations of ``x``."""
        return (self.second(self.first(x)) + self.shortcut(x)).relu()


class BiSeNetV2(SegmentationNetwork):
    """BiSeNet V2: a wide, shallow branch for details and a narrow, deep one for the context (Table 1 of its paper).

    In training, the paper has auxiliary heads at four depths of the semantic branch ("booster"). Here there are two, at
    strides 8 and 16, with which every network of this package trains.

    Args:
        num_classes: Number of classes.
    """

    def __init__(self, num_classes: int = 19):
        super().__init__('bisenetv2', num_classes)
        self.fine = nn.Sequential(
            *(ConvBNReLU(3, 64, stride=2), ConvBNReLU(64, 64)),
            *(ConvBNReLU(64, 64, stride=2), ConvBNReLU(64, 64), ConvBNReLU(64, 64)),
            *(ConvBNReLU(64, 128, stride=2), ConvBNReLU(128, 128), ConvBNReLU(128, 128)),
        )
        self.stem = Stem()
        self.semantic8 = nn.Sequential(GatherExpand(16, 32, stride=2), GatherExpand(32, 32))
        self.semantic16 = nn.Sequential(GatherExpand(32, 64, stride=2), GatherExpand(64, 64))
        deepest = [GatherExpand(64, 128, stride=2), *(GatherExpand(128, 128) for _ in range(3))]
        self.semantic32 = nn.Sequential(*deepest, ContextEmbedding(128))
        self.aggregation = GuidedAggregation(128)
        self.head = Head(128, 1024, num_classes)
        self.aux8_head = Head(32, 128, num_classes)
        self.aux16_head = Head(64, 128, num_classes)

    def forward(self, image: Tensor) -> Tensor:
        """Logits at stride 8: normalised RGB ``[N, 3, H, W]`` to ``[N, C, ceil(H/8), ceil(W/8)]``."""
        return self.head(self.aggregation(self.fine(image), self._semantic(image)[2]))

    def forward_train(self, image: Tensor) -> SegmentationOutput:
        """The same with the auxiliary logits; there are no detail heads."""
        semantic8, semantic16, semantic32 = self._semantic(image)
        logits = self.head(self.aggregation(self.fine(image), semantic32))
        return SegmentationOutput(logits, self.aux8_head(semantic8), self.aux16_head(semantic16), {})

    def details(self, image: Tensor) -> Tensor:
        """Return the feature of the detail branch, which is at stride 8."""
        return self.fine(image)

    def _semantic(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the features of the semantic branch at strides 8, 16 and 32."""
        semantic8 = self.semantic8(self.stem(image))
        semantic16 = self.semantic16(semantic8)
        return semantic8, semantic16, self.semantic32(semantic16)


class Stem(nn.Module):
    """Stem block of V2 (Figure 4a): ``[N, 3, H, W]`` to ``[N, 16, ceil(H/4), ceil(W/4)]``."""

    def __init__(self) -> None:
        super().__init__()
        self.first = ConvBNReLU(3, 16, stride=2)
        self.strided = nn.Sequential(ConvBNReLU(16, 8, kernel=1), ConvBNReLU(8, 16, stride=2))
        self.pooled = nn.MaxPool2d(3, stride=2, padding=1)
        self.fused = ConvBNReLU(32, 16)

    def forward(self, image: Tensor) -> Tensor:
        """Return the features of a normalised RGB image."""
        x = self.first(image)
        return self.fused(torch.cat([self.strided(x), self.pooled(x)], dim=1))


class GatherExpand(nn.Module):
    """Gather-and-expansion layer of V2 (Figure 5): ``[N, in, H, W]`` to ``[N, out, ceil(H/stride), ceil(W/stride)]``.

    A 3 x 3 convolution, a depthwise one to ``EXPANSION`` times the channels, and a projection, beside a shortcut.
    """

    EXPANSION = 6

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1):
        super().__init__()
        wide = self.EXPANSION * in_channels
        depthwise = [_conv_bn(in_channels, wide, stride=stride, groups=in_channels)]
        self.shortcut: nn.Module = nn.Identity()
        if stride == 2:
            depthwise.append(_conv_bn(wide, wide, groups=wide))
            self.shortcut = nn.Sequential(
                _conv_bn(in_channels, in_channels, stride=2, groups=in_channels), _conv_bn(in_channels, out_channels, 1)
            )
        self.gather = ConvBNReLU(in_channels, in_channels)
        self.expand = nn.Sequential(*depthwise, nn.ReLU(inplace=True))
        self.project = _conv_bn(wide, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the activations of ``x``."""
        return (self.project(self.expand(self.gather(x))) + self.shortcut(x)).relu()


class ContextEmbedding(nn.Module):
    """Context embedding block of V2 (Figure 4b): the global mean is added to each pixel. Keeps the shape."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.context = ConvBNReLU(channels, channels, kernel=1)
        self.fused = ConvBNReLU(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the activations of ``x``, ``[N, channels, H, W]``."""
        return self.fused(x + self.context(self.norm(x.mean(dim=(2, 3), keepdim=True))))


class GuidedAggregation(nn.Module):
    """Bilateral guided aggregation of V2 (Figure 6): each branch gates the other, at its own resolution.

    Args:
        channels: Channels of both branches and of the result.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.fine_kept = nn.Sequential(
            _conv_bn(channels, channels, groups=channels), nn.Conv2d(channels, channels, 1, bias=False)
        )
        self.fine_pooled = nn.Sequential(
            _conv_bn(channels, channels, stride=2), nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False)
        )
        self.semantic_enlarged = _conv_bn(channels, channels)
        self.semantic_kept = nn.Sequential(
            _conv_bn(channels, channels, groups=channels), nn.Conv2d(channels, channels, 1, bias=False)
        )
        self.fused = _conv_bn(channels, channels)

    def forward(self, fine: Tensor, semantic: Tensor) -> Tensor:
        """``[N, C, h, w]`` at stride 8 and ``[N, C, ceil(h/4), ceil(w/4)]`` at stride 32 to ``[N, C, h, w]``."""
        large = self.fine_kept(fine) * _enlarge(self.semantic_enlarged(semantic), fine).sigmoid()
        small = self.fine_pooled(fine) * self.semantic_kept(semantic).sigmoid()
        return self.fused(large + _enlarge(small, fine))


def _enlarge(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[2:], mode='bilinear', align_corners=False)


def _conv_bn(in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
    )
