# SPDX-License-Identifier: Apache-2.0
"""Test the network against the paper: Tables 1 and 2, Equation 3, and feature sizes."""

import pytest
import torch
from torch import nn

from stdc_core.model.segmentation import STDCSeg, upsample
from stdc_core.model.stdc import STDCBackbone, STDCClassifier, STDCModule


def multiply_adds(model: nn.Module, image: torch.Tensor) -> int:
    """Return the number of operations as counted in Table 2.

    They are the multiply-adds of convolutions and linear layers, two for each value of a batch norm, and one for each
    value that a ReLU or a pooling reads.
    """
    total = 0

    def count(module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d | nn.Linear):
            total += output.numel() * module.weight[0].numel()
        elif isinstance(module, nn.BatchNorm2d):
            total += 2 * output.numel()
        elif isinstance(module, nn.ReLU | nn.AvgPool2d):
            total += inputs[0].numel()

    for module in model.modules():
        module.register_forward_hook(count)
    with torch.inference_mode():
        model(image)
    return total


@pytest.mark.parametrize(('name', 'parameters', 'madds'), [('stdc1', 8.44e6, 813e6), ('stdc2', 12.47e6, 1446e6)])
def test_classifier_has_the_size_of_table_2(name, parameters, madds):
    model = STDCClassifier(name).eval()
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(parameters, abs=0.005e6)
    assert multiply_adds(model, torch.zeros(1, 3, 224, 224)) == pytest.approx(madds, abs=0.5e6)
    assert model(torch.zeros(2, 3, 224, 224)).shape == (2, 1000)


@pytest.mark.parametrize(('height', 'width'), [(224, 224), (128, 256), (97, 131)])
def test_backbone_features_have_the_sizes_of_table_2(height, width):
    features = STDCBackbone('stdc1').eval()(torch.zeros(1, 3, height, width))
    expected = {2: 32, 4: 64, 8: 256, 16: 512, 32: 1024}
    assert {s: tuple(x.shape[1:]) for s, x in features.items()} == {
        s: (channels, -(-height // s), -(-width // s)) for s, channels in expected.items()
    }


@pytest.mark.parametrize(('name', 'stages'), [('stdc1', (2, 2, 2)), ('stdc2', (4, 5, 3))])
def test_stages_repeat_as_in_table_2(name, stages):
    backbone = STDCBackbone(name)
    assert tuple(map(len, (backbone.stage3, backbone.stage4, backbone.stage5))) == stages


def receptive_fields(module: STDCModule) -> list[int]:
    """Return the width of the receptive field of each block, measured by gradients."""
    for parameter in module.parameters():
        nn.init.ones_(parameter) if parameter.dim() > 1 else nn.init.zeros_(parameter)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.ones_(norm.weight)
    module.eval()
    channels = [conv.conv.out_channels for conv in module.blocks]
    widths = []
    for share in range(4):
        x = torch.ones(1, 8, 41, 41, requires_grad=True)
        parts = module(x).split(channels, dim=1)
        middle = parts[share].shape[2] // 2
        parts[share][0, 0, middle, middle].backward()
        widths.append(int((x.grad[0, 0].abs().sum(dim=0) > 0).sum()))
    return widths


def test_receptive_fields_of_table_1():
    assert receptive_fields(STDCModule(8, 64)) == [1, 3, 5, 7]


def test_receptive_fields_of_table_1_with_stride_2():
    # Table 1 gives 3, 3, 7, 11 for a module with stride in its second block. The network of Table 2 has the stride in a
    # depthwise convolution before that block, so blocks 2 to 4 each see one step further.
    assert receptive_fields(STDCModule(8, 64, stride=2)) == [3, 7, 11, 15]


@pytest.mark.parametrize(('n', 'm'), [(256, 256), (512, 512), (1024, 1024), (64, 256)])
def test_parameters_of_equation_3(n, m):
    blocks = 4
    weights = sum(conv.conv.weight.numel() for conv in STDCModule(n, m).blocks)
    # S_param = M * (N + 1) / 2 + 9 M^2 / 2^3 * (1 + sum over i < n-3 ...), block by block for n = 4:
    half = m // 2
    assert weights == n * half + 9 * half * (half // 2) + 9 * (half // 2) * (half // 4) + 9 * (half // 4) ** 2
    # The closed form of the equation: N M / 2 + 3 M^2 / 2 * (1 + 1 / 2^(2n - 3)).
    assert weights == n * m / 2 + 3 * m**2 / 2 * (1 + 1 / 2 ** (2 * blocks - 3))


def test_module_refuses_channels_that_do_not_divide():
    with pytest.raises(ValueError, match='multiple of 8.*not 60'):
        STDCModule(8, 60)


def test_unknown_backbone_is_named():
    with pytest.raises(ValueError, match="unknown backbone 'stdc3'.*stdc1, stdc2"):
        STDCBackbone('stdc3')


@pytest.mark.parametrize('name', ['stdc1', 'stdc2'])
@pytest.mark.parametrize(('height', 'width'), [(64, 96), (45, 71), (8, 8)])
def test_segmentation_of_any_size(name, height, width):
    model = STDCSeg(name, num_classes=5, detail_strides=(2, 8)).eval()
    image = torch.rand(2, 3, height, width)
    with torch.inference_mode():
        output = model.forward_train(image)
        assert torch.equal(output.logits, model(image))
    eighth, sixteenth = (-(-height // 8), -(-width // 8)), (-(-height // 16), -(-width // 16))
    assert output.logits.shape == output.aux8.shape == (2, 5, *eighth)
    assert output.aux16.shape == (2, 5, *sixteenth)
    assert output.detail[8].shape == (2, 1, *eighth)
    assert output.detail[2].shape == (2, 1, -(-height // 2), -(-width // 2))
    assert upsample(output.logits, (height, width)).shape == (2, 5, height, width)
