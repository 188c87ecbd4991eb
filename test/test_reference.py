# SPDX-License-Identifier: Apache-2.0
"""Test network, losses and detail target against values of the paper's reference implementation."""

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from stdc_core.classes import CAMVID, CITYSCAPES
from stdc_core.model.reference import import_reference
from stdc_core.model.segmentation import upsample
from stdc_core.model.weights import WeightsError
from stdc_core.training.detail import detail_loss, detail_target
from stdc_core.training.losses import ohem_cross_entropy

REFERENCE = np.load(Path(__file__).parent / 'data' / 'reference.npz')


def regenerated(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Return the weights that the reference values were computed with, seeded by the checksum of the key."""
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    if key.endswith('num_batches_tracked'):
        return torch.tensor(0)
    if key.endswith('running_mean'):
        value = 0.1 * rng.standard_normal(shape)
    elif key.endswith('running_var'):
        value = rng.uniform(0.5, 1.5, shape)
    elif len(shape) >= 2:
        value = np.sqrt(2 / np.prod(shape[1:])) * rng.standard_normal(shape)
    elif key.endswith('weight'):
        value = rng.uniform(0.5, 1.5, shape)
    else:
        value = 0.1 * rng.standard_normal(shape)
    return torch.from_numpy(np.asarray(value, np.float32))


def checkpoint(name: str, repeated: bool = False) -> dict[str, torch.Tensor]:
    """Return a reference checkpoint, with or without the entries that repeat the backbone under x2 ... x32."""
    state = {}
    for key, shape in zip(REFERENCE[f'{name}_keys'], REFERENCE[f'{name}_shapes'], strict=True):
        size = tuple(int(n) for n in shape.split('x')) if shape else ()
        if '.backbone.x' not in key:
            state[str(key)] = regenerated(str(key), size)
        elif repeated:
            state[str(key)] = torch.zeros(size)
    return state


@pytest.mark.parametrize('name', ['stdc1', 'stdc2'])
@pytest.mark.parametrize('repeated', [False, True], ids=['features', 'features-and-x'])
def test_outputs_equal_the_reference(name, repeated, tmp_path):
    torch.save(checkpoint(name, repeated), tmp_path / 'model.pth')
    model = import_reference(tmp_path / 'model.pth', CITYSCAPES)
    image = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 3, 128, 256)).astype(np.float32))
    with torch.inference_mode():
        output = model.forward_train(image)
    full = {
        'logits': upsample(output.logits, (128, 256)),
        'aux16': upsample(output.aux8, (128, 256)),  # the reference names its heads by the stride that they refine
        'aux32': upsample(output.aux16, (128, 256)),
    }
    ours = {f'{key}_stride16': value[..., ::16, ::16] for key, value in full.items()}
    ours['detail2_stride8'] = output.detail[2][..., ::8, ::8]
    ours['detail4_stride16'] = output.detail[4][..., ::4, ::4]
    ours['detail8_stride32'] = output.detail[8][..., ::4, ::4]
    for key, value in ours.items():
        expected = REFERENCE[f'{name}_{key}']
        error = np.abs(value.numpy() - expected).max() / np.abs(expected).max()
        assert error < 1e-3, key
    assert np.array_equal(full['logits'].argmax(1).numpy(), REFERENCE[f'{name}_labels'])


def test_wrapped_checkpoints_are_read(tmp_path):
    wrapped = {'state_dict': {f'module.{key}': value for key, value in checkpoint('stdc1').items()}}
    torch.save(wrapped, tmp_path / 'model.pth')
    assert import_reference(tmp_path / 'model.pth', CITYSCAPES).backbone.name == 'stdc1'


def test_decoder_batch_norms_scale_by_their_absolute_weight(tmp_path):
    state = checkpoint('stdc1')
    state['cp.conv_avg.bn.weight'] *= -1
    state['cp.backbone.features.0.bn.weight'] *= -1
    torch.save(state, tmp_path / 'model.pth')
    model = import_reference(tmp_path / 'model.pth', CITYSCAPES)
    torch.testing.assert_close(model.global_context.bn.weight, -state['cp.conv_avg.bn.weight'] + 1e-5)
    torch.testing.assert_close(model.backbone.stage1.bn.weight, state['cp.backbone.features.0.bn.weight'])


def test_wrong_number_of_classes_names_the_keys(tmp_path):
    torch.save(checkpoint('stdc1'), tmp_path / 'model.pth')
    with pytest.raises(WeightsError, match=r'model\.pth: expected 11 classes, but conv_out\.conv_out\.weight has 19'):
        import_reference(tmp_path / 'model.pth', CAMVID)


@pytest.mark.parametrize('key', ['ffm.conv1.weight', 'cp.backbone.features.4.avd_layer.1.running_var'])
def test_missing_key_is_named(key, tmp_path):
    state = checkpoint('stdc1')
    del state[key]
    torch.save(state, tmp_path / 'model.pth')
    with pytest.raises(WeightsError, match=key.replace('.', r'\.')):
        import_reference(tmp_path / 'model.pth', CITYSCAPES)


def test_unknown_key_is_named(tmp_path):
    torch.save(checkpoint('stdc1') | {'extra.weight': torch.zeros(1)}, tmp_path / 'model.pth')
    with pytest.raises(WeightsError, match=r'unexpected extra\.weight'):
        import_reference(tmp_path / 'model.pth', CITYSCAPES)


def test_code_in_a_checkpoint_is_not_executed(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / 'ran',))

    torch.save({'weight': Evil()}, tmp_path / 'model.pth')
    with pytest.raises(WeightsError, match='not a PyTorch file of plain tensors'):
        import_reference(tmp_path / 'model.pth', CITYSCAPES)
    assert not (tmp_path / 'ran').exists()


def test_other_files_are_refused(tmp_path):
    (tmp_path / 'text.pth').write_text('hello')
    with pytest.raises(WeightsError, match=r'text\.pth: not a PyTorch file'):
        import_reference(tmp_path / 'text.pth', CITYSCAPES)
    torch.save({'conv.weight': torch.zeros(1)}, tmp_path / 'other.pth')
    with pytest.raises(WeightsError, match=r'no key cp\.backbone\.features'):
        import_reference(tmp_path / 'other.pth', CITYSCAPES)
    with pytest.raises(FileNotFoundError, match=r'absent\.pth'):
        import_reference(tmp_path / 'absent.pth', CITYSCAPES)


def test_detail_target_equals_the_reference():
    target = detail_target(torch.from_numpy(REFERENCE['detail_label']).long())
    inner = np.s_[:, :, 5:-5, 5:-5]
    assert np.array_equal(target.numpy()[inner], REFERENCE['detail_target'][inner])


def test_detail_loss_equals_the_reference():
    bce, dice = detail_loss(
        torch.from_numpy(REFERENCE['detail_logits']), torch.from_numpy(REFERENCE['detail_target']).float()
    )
    assert float(bce) == pytest.approx(float(REFERENCE['detail_bce']), rel=1e-4)
    assert float(dice) == pytest.approx(float(REFERENCE['detail_dice_paper_eq5']), rel=1e-4)


@pytest.mark.parametrize('min_kept', [16, 2000])
def test_ohem_equals_the_reference(min_kept):
    loss = ohem_cross_entropy(
        torch.from_numpy(REFERENCE['ohem_logits']),
        torch.from_numpy(REFERENCE['ohem_labels']).long(),
        threshold=float(REFERENCE['ohem_thresh']),
        min_kept=min_kept,
    )
    assert float(loss) == pytest.approx(float(REFERENCE[f'ohem_loss_nmin{min_kept}']), rel=1e-4)
