# SPDX-License-Identifier: Apache-2.0
"""Test ``stdc blend``: each weight is the mean of two, and networks that do not fit are refused."""

import json

import pytest
import torch

from stdc_core.classes import CAMVID, CITYSCAPES
from stdc_core.commands.main import main
from stdc_core.export.onnx import export
from stdc_core.model.blend import blend
from stdc_core.model.deployed_graph import stored_class_offset
from stdc_core.model.segmentation import STDCSeg
from stdc_core.model.weights import load_weights, save_weights


def random_network(seed: int) -> STDCSeg:
    torch.manual_seed(seed)
    model = STDCSeg('stdc1', len(CAMVID))
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.uniform_(0.1, 1.0)
    return model


@pytest.fixture(scope='module')
def tuned(tmp_path_factory):
    path = tmp_path_factory.mktemp('blend') / 'tuned.safetensors'
    provenance = {'data': 'streets', 'class_offset': json.dumps([1.0] * 11), 'miou': '0.9000 on streets/val'}
    save_weights(random_network(0), path, CAMVID, provenance)
    return path


@pytest.fixture(scope='module')
def before(tmp_path_factory):
    path = tmp_path_factory.mktemp('blend') / 'before.safetensors'
    save_weights(random_network(1), path, CAMVID, {'data': 'town'})
    return path


def test_each_weight_is_the_mean_of_both(tuned, before, tmp_path):
    assert main(['blend', str(tuned), str(before), str(tmp_path / 'out.safetensors'), '--share', '0.25']) == 0
    (first, _, _), (second, _, _) = load_weights(tuned), load_weights(before)
    model, classes, provenance = load_weights(tmp_path / 'out.safetensors')
    a, b = first.state_dict(), second.state_dict()
    for key, value in model.state_dict().items():
        expected = 0.75 * a[key] + 0.25 * b[key] if value.is_floating_point() else a[key]
        torch.testing.assert_close(value, expected, rtol=1e-3, atol=1e-3)
    assert classes == CAMVID and provenance['data'] == 'streets'
    assert provenance['blend'] == '0.75 of tuned.safetensors, 0.25 of before.safetensors'
    assert stored_class_offset(provenance) == [0.75] * 11
    assert 'miou' not in provenance  # nobody has measured that of the blend


def test_model_file_leaves_the_auxiliary_heads_alone(tuned, before, tmp_path):
    export(before, tmp_path / 'before.onnx')
    model = blend(tuned, tmp_path / 'before.onnx', 0.5)[0].state_dict()
    first, second = load_weights(tuned)[0].state_dict(), load_weights(before)[0].state_dict()
    torch.testing.assert_close(model['head.1.weight'], (first['head.1.weight'] + second['head.1.weight']) / 2)
    torch.testing.assert_close(model['aux8_head.1.weight'], first['aux8_head.1.weight'])


@pytest.mark.parametrize('share', [0.0, 1.0])
def test_share_of_all_or_nothing_is_one_of_the_two(share, tuned, before):
    expected = load_weights(before if share else tuned)[0].state_dict()
    for key, value in blend(tuned, before, share)[0].state_dict().items():
        torch.testing.assert_close(value, expected[key])


def test_networks_that_do_not_fit_are_refused(tuned, before, tmp_path, capsys):
    save_weights(STDCSeg('stdc2', len(CAMVID)), tmp_path / 'larger.safetensors', CAMVID, {})
    save_weights(STDCSeg('stdc1', len(CITYSCAPES)), tmp_path / 'other.safetensors', CITYSCAPES, {})
    export(tuned, tmp_path / 'tuned.onnx')
    out = tmp_path / 'out.safetensors'
    for arguments, message in [
        ([tuned, tmp_path / 'larger.safetensors', out], 'found backbone stdc2, expected stdc1 as in'),
        ([tuned, tmp_path / 'other.safetensors', out], 'found the classes road, sidewalk,'),
        ([tmp_path / 'tuned.onnx', before, out], 'a model.onnx without auxiliary heads, expected weights of'),
        ([tuned, before, out, '--share', '1.5'], 'share: expected 0 to 1, found 1.5'),
        ([tuned, tmp_path / 'none.safetensors', out], 'none.safetensors'),
        ([tuned, before, before], 'exists; choose another name'),
    ]:
        assert main(['blend', *map(str, arguments)]) == 2
        assert message in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ('command', 'out', 'suffix'),
    [
        (['blend', '{weights}', '{weights}', '{out}'], 'out.onnx', '.safetensors'),
        (['import', '{weights}', '{out}'], 'out.pth', '.safetensors'),
        (['export', '{weights}', '{out}'], 'out.safetensors', '.onnx'),
        (['quantize', '{weights}', '{out}', '--images', '.'], 'out', '.onnx'),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_output_with_the_suffix_of_another_format_is_refused(command, out, suffix, tuned, tmp_path, capsys):
    path = tmp_path / out
    assert main([text.format(weights=tuned, out=path) for text in command]) == 2
    assert (
        capsys.readouterr().err
        == f'stdc {command[0]}: {path}: expected a file name that ends with {suffix}, found {out}\n'
    )
    assert not path.exists()
