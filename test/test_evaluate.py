# SPDX-License-Identifier: Apache-2.0
"""Test ``stdc evaluate``: its numbers, from weights and from the model file, and the report with its pictures."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from stdc_core.classes import CAMVID, CITYSCAPES, ClassTable
from stdc_core.commands.main import main
from stdc_core.data.folder import SegmentationFolder
from stdc_core.data.synthetic import SyntheticDrive
from stdc_core.evaluation.confusion_picture import confusion_picture
from stdc_core.evaluation.evaluate import ImageScore, Predictor, evaluate, evenly
from stdc_core.evaluation.metrics import ConfusionMatrix
from stdc_core.evaluation.predictors import open_predictor
from stdc_core.evaluation.report import Evaluation, chosen, describe, report, write_report
from stdc_core.inference import DEFAULT_MODEL, Segmenter
from stdc_core.pictures.drawing import canvas, drawn_names, legend, put_text, shorten, text_width

HEIGHT, WIDTH, IMAGES = 96, 128, 12


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Return a rendered dataset with the split val, in which the first row of each label is unlabelled."""
    root = tmp_path_factory.mktemp('rendered')
    drive = SyntheticDrive(seed=3, height=HEIGHT, width=WIDTH, frames=20 * IMAGES)
    for name in ('images', 'labels'):
        (root / 'val' / name).mkdir(parents=True)
    for index in range(IMAGES):
        frame = drive[20 * index]
        label = frame.label.copy()
        label[0] = 255
        cv2.imwrite(str(root / 'val' / 'images' / f'{index:03d}.png'), frame.image)
        cv2.imwrite(str(root / 'val' / 'labels' / f'{index:03d}.png'), label)
    return root


@pytest.fixture
def dataset(data):
    return SegmentationFolder(data, 'val', CAMVID)


def straightforward_iou(masks, labels):
    """Return the IoU of each class over all pixels by its definition; NaN for a class without pixels."""
    masks, labels = (np.concatenate([a.ravel() for a in arrays]) for arrays in (masks, labels))
    masks, labels = masks[labels != 255], labels[labels != 255]
    result = np.full(len(CAMVID), np.nan)
    for number in range(len(CAMVID)):
        union = ((masks == number) | (labels == number)).sum()
        if union:
            result[number] = ((masks == number) & (labels == number)).sum() / union
    return result


def constant(number: int, classes=CAMVID) -> Predictor:
    """Return a network that predicts one class everywhere."""
    return Predictor(
        lambda image: np.full(image.shape[:2], number, np.uint8),
        classes,
        'constant',
        {'input_scale': 1.0, 'full_scale_pixels': None, 'scales': [1.0], 'flip': False, 'backend': 'none'},
    )


def test_iou_equals_its_definition(dataset):
    predictor = open_predictor(DEFAULT_MODEL, threads=1)
    evaluation = evaluate(predictor, dataset)
    samples = [dataset[index] for index in range(len(dataset))]
    iou = straightforward_iou(
        [predictor.mask(sample.image) for sample in samples], [sample.label for sample in samples]
    )
    np.testing.assert_allclose(evaluation.confusion.iou(), iou, rtol=1e-12)
    assert evaluation.confusion.miou() == pytest.approx(np.nanmean(iou))
    assert evaluation.confusion.counts.sum() == IMAGES * (HEIGHT - 1) * WIDTH
    assert [image.name for image in evaluation.images] == [f'{index:03d}' for index in range(IMAGES)]


def test_numbers_on_real_images(camvid, tmp_path):
    for name, suffix in (('images', 'webp'), ('labels', 'png')):
        (tmp_path / 'val' / name).mkdir(parents=True)
        for path in sorted((camvid / 'val' / name).glob(f'*.{suffix}'))[::12]:
            (tmp_path / 'val' / name / path.name).symlink_to(path)
    dataset = SegmentationFolder(tmp_path, 'val', CAMVID)
    assert len(dataset) == 9
    predictor = open_predictor(DEFAULT_MODEL)
    evaluation = evaluate(predictor, dataset)
    samples = [dataset[index] for index in range(len(dataset))]
    iou = straightforward_iou(
        [predictor.mask(sample.image) for sample in samples], [sample.label for sample in samples]
    )
    np.testing.assert_allclose(evaluation.confusion.iou(), iou, rtol=1e-12)
    assert evaluation.confusion.miou() > 0.5


def test_score_of_an_image_uses_its_classes(dataset):
    index = 4
    label = dataset[index].label
    (image,) = evaluate(constant(3), dataset, [index]).images
    counted = label[label != 255]
    road = (counted == 3).mean()
    assert image.index == index
    assert image.pixel_accuracy == pytest.approx(road)
    assert image.miou == pytest.approx(road / len(np.unique(counted)))


def test_weights_and_the_model_exported_from_them_agree(dataset, tmp_path):
    pytest.importorskip('torch')
    from stdc_core.model.weights import load_weights, save_weights

    model, classes, _ = load_weights(DEFAULT_MODEL)
    weights = tmp_path / 'weights.safetensors'
    save_weights(model, weights, classes, {'recipe': json.dumps({'input_scale': 0.75})})
    exported = tmp_path / 'model.onnx'
    assert main(['export', str(weights), str(exported), '--input-scale', '0.75']) == 0

    on_cpu = {'threads': 1, 'device': 'cpu'}
    predictors = [open_predictor(weights, **on_cpu), open_predictor(exported, **on_cpu, backend='onnxruntime')]
    assert [predictor.protocol['backend'] for predictor in predictors] == ['torch, float32', 'onnxruntime']
    assert [predictor.protocol['input_scale'] for predictor in predictors] == [0.75, 0.75]
    assert predictors[0].name == predictors[1].name == 'stdc1-seg75'
    evaluations = [evaluate(predictor, dataset, [0, 4, 8]) for predictor in predictors]
    assert abs(evaluations[0].confusion.miou() - evaluations[1].confusion.miou()) < 1e-3
    masks = [[predictor.mask(dataset[index].image) for index in range(3)] for predictor in predictors]
    assert np.mean(np.array(masks[0]) == np.array(masks[1])) > 0.999

    # torch also uses the input scale of the model file.
    assert open_predictor(exported, flip=True, device='cpu').protocol['input_scale'] == 0.75
    assert open_predictor(exported, input_scale=1, flip=True, device='cpu').protocol['input_scale'] == 1


def test_torch_scales_large_images_as_the_segmenter():
    pytest.importorskip('torch')
    from stdc_core.evaluation.torch_predictor import torch_predictor

    image = SyntheticDrive(seed=3, height=480, width=640, frames=1)[0].image
    predictors = [open_predictor(DEFAULT_MODEL, device='cpu'), open_predictor(DEFAULT_MODEL, flip=True, device='cpu')]
    assert [predictor.protocol['backend'] for predictor in predictors] == ['onnxruntime', 'torch, float32']
    for predictor in predictors:
        assert describe(predictor).startswith('stdc1-seg150, input scale 1.5 up to 172800 pixels, ')
    named = open_predictor(DEFAULT_MODEL, input_scale=1.125, flip=True, device='cpu')
    assert describe(named).startswith('stdc1-seg112.5, input scale 1.125, flipped')
    assert np.array_equal(predictors[1].mask(image), named.mask(image))
    plain = torch_predictor(DEFAULT_MODEL, None, (1.0,), False, 0, 'cpu')
    assert np.mean(plain.mask(image) == predictors[0].mask(image)) > 0.999


def test_evaluation_on_a_gpu_disables_tf32(dataset, monkeypatch):
    torch = pytest.importorskip('torch')
    from stdc_core.evaluation import torch_predictor

    cudnn, found = torch.backends.cudnn, []
    computed = torch_predictor.average_scores
    monkeypatch.setattr(
        torch_predictor,
        'average_scores',
        lambda *arguments: (found.append((cudnn.enabled, cudnn.allow_tf32)), computed(*arguments))[1],
    )
    open_predictor(DEFAULT_MODEL, flip=True, device='cpu').mask(dataset[0].image)
    assert found == [(True, False)]


def test_scales_and_mirror_image_are_averaged():
    torch = pytest.importorskip('torch')
    from stdc_core.evaluation.torch_predictor import average_scores
    from stdc_core.model.deployed_graph import DeployedGraph, stored_class_offset
    from stdc_core.model.weights import load_weights

    image = SyntheticDrive(seed=3, height=HEIGHT, width=WIDTH, frames=1)[0].image
    model, _, provenance = load_weights(DEFAULT_MODEL)
    graphs = [DeployedGraph(model, scale, stored_class_offset(provenance)).eval() for scale in (0.75, 1.0)]
    batch, mirrored = (torch.from_numpy(a.copy())[None] for a in (image, image[:, ::-1]))
    with torch.inference_mode():
        expected = sum(graph.logits(batch).softmax(1) + graph.logits(mirrored).softmax(1).flip(3) for graph in graphs)
        torch.testing.assert_close(average_scores(graphs, batch, flip=True), expected)
        assert torch.equal(average_scores(graphs[1:], batch, flip=False), graphs[1].logits(batch))
    predictor = open_predictor(DEFAULT_MODEL, 1.0, scales=(0.75, 1), flip=True, threads=1, device='cpu')
    assert np.array_equal(predictor.mask(image), expected.argmax(1)[0].numpy())
    # The prediction of the mirrored image is the mirrored prediction.
    both = open_predictor(DEFAULT_MODEL, flip=True, device='cpu')
    assert np.mean(both.mask(image.copy())[:, ::-1] == both.mask(image[:, ::-1])) > 0.999


def test_command_prints_every_class_and_writes_a_report(data, tmp_path, capsys):
    out = tmp_path / 'new' / 'report'
    arguments = ['evaluate', str(DEFAULT_MODEL), '--data', str(data), '--threads', '1', '--out', str(out)]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in CAMVID.names)
    assert f'{IMAGES} images' in printed
    assert sorted(path.name for path in out.iterdir()) == ['confusion.png', 'report.json', 'sheet.png']
    assert [path.name for path in out.parent.iterdir()] == ['report']

    content = json.loads((out / 'report.json').read_text())
    assert float(printed.split('mIoU')[1].split()[0]) == pytest.approx(100 * content['miou'], abs=0.006)
    assert [entry['name'] for entry in content['classes']] == list(CAMVID.names)
    counts = np.array(content['confusion']['counts'])
    assert np.array_equal(ConfusionMatrix.of(counts).counts, counts)
    assert counts.sum() == content['protocol']['pixels'] == IMAGES * (HEIGHT - 1) * WIDTH
    assert content['dataset'] == {'path': str(data), 'split': 'val', 'images': IMAGES}
    assert content['model'] == {'file': str(DEFAULT_MODEL), 'name': Segmenter.load().info.name}
    protocol, scale = content['protocol'], Segmenter.load().scale
    assert (protocol['input_scale'], protocol['full_scale_pixels']) == scale == (1.5, 360 * 480)
    assert len(content['images']) == content['protocol']['images'] == IMAGES

    before = (out / 'report.json').read_bytes()
    assert main(arguments) == 2
    assert f'{out} is not empty' in capsys.readouterr().err
    assert (out / 'report.json').read_bytes() == before


def test_limit_takes_images_spread_evenly(data, capsys):
    arguments = ['evaluate', str(DEFAULT_MODEL), '--data', str(data), '--threads', '1']
    assert main([*arguments, '--limit', '2']) == 0
    assert f'(2 of {IMAGES} images' in capsys.readouterr().out
    assert evenly(2, IMAGES) == [0, IMAGES - 1]
    assert evenly(3, 9) == [0, 4, 8]
    assert evenly(20, 3) == [0, 1, 2]
    assert main([*arguments, '--limit', '0']) == 2
    assert '--limit: expected 1 or more, found 0' in capsys.readouterr().err


def test_sheet_shows_evenly_spread_and_worst_images():
    images = [ImageScore(i, str(i), 0.5 + 0.01 * i if i != 7 else float('nan'), 0.9) for i in range(40)]
    (_, spread), (_, worst) = chosen(Evaluation(CAMVID, ConfusionMatrix(11), images))
    assert [image.index for image in spread] == [0, 8, 16, 23, 31, 39]
    assert [image.index for image in worst] == [1, 2, 3]
    assert chosen(Evaluation(CAMVID, ConfusionMatrix(11), images[:5])) == [('', images[:5])]


def test_errors_are_red_except_unlabelled_pixels(dataset, tmp_path):
    predictor = constant(3)
    write_report(tmp_path / 'r', evaluate(predictor, dataset, [0]), predictor, dataset, Path('m'), Path('d'), 'val')
    sheet = cv2.imread(str(tmp_path / 'r' / 'sheet.png')).astype(int)
    # One row of pictures of 420 pixels width below the headings; the errors are on the right.
    height = round(420 * HEIGHT / WIDTH)
    errors = sheet[76 + 38 :][:height, -430:-10]
    red = (errors[..., 2] > 180) & (errors[..., :2].max(axis=2) < 140)
    label = cv2.resize(dataset[0].label, (420, height), interpolation=cv2.INTER_NEAREST)
    assert np.array_equal(red, (label != 3) & (label != 255))


def test_confusion_picture_fits_every_table():
    rng = np.random.default_rng(0)
    for classes in (CAMVID, CITYSCAPES):
        confusion = ConfusionMatrix(len(classes))
        plain = confusion_picture(confusion, classes, 'nothing', 'counted')
        confusion.update(rng.integers(0, 256, 5000), rng.integers(0, len(classes), 5000))
        picture = confusion_picture(confusion, classes, 'ids outside', 'the table have a column')
        assert picture.dtype == np.uint8
        assert picture.shape[1] > plain.shape[1]
        assert (picture[:, -10:] == 255).all()


def test_class_name_outside_the_font_becomes_a_number():
    classes = ClassTable(('road', 'straße'), ((0, 0, 0), (255, 255, 255)))
    assert drawn_names(classes) == ['road', 'class 1']
    assert np.array_equal(legend(classes, 400), legend(ClassTable(('road', 'class 1'), classes.colors), 400))
    pictures = [
        confusion_picture(ConfusionMatrix(2), table, 'a', 'b')
        for table in (classes, ClassTable(('road', 'class 1'), classes.colors))
    ]
    assert np.array_equal(*pictures)


def test_text_stays_inside_and_is_shortened():
    picture = canvas(20, 60, (0, 0, 0))
    put_text(picture, 'a long line of text', (30, 14), 10, (255, 255, 255))
    assert picture.any()
    name = 'a_very_long_name_of_a_file_000123'
    short = shorten(name, 10, 120)
    assert text_width(short, 10) <= 120
    assert short.startswith('a_v')
    assert short.endswith('123')
    assert shorten('short', 10, 400) == 'short'


def test_class_without_pixels_has_no_score(dataset):
    evaluation = Evaluation(CAMVID, ConfusionMatrix(11), [ImageScore(0, 'a', float('nan'), float('nan'))])
    content = report(evaluation, constant(0), Path('m'), Path('d'), 'val', 1)
    json.dumps(content, allow_nan=False)
    assert content['miou'] is None
    assert content['classes'][0] == {'name': 'sky', 'iou': None, 'recall': None, 'precision': None, 'pixels': 0}


def test_other_classes_are_refused(dataset):
    with pytest.raises(ValueError, match='the network has the classes road.*but the dataset has sky'):
        evaluate(constant(0, CITYSCAPES), dataset)


def test_too_small_image_is_named(dataset):
    def fail(image):
        raise ValueError('image: nothing is left')

    predictor = constant(0)
    predictor = Predictor(fail, CAMVID, predictor.name, predictor.protocol)
    with pytest.raises(ValueError, match='000: image: nothing is left'):
        evaluate(predictor, dataset)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--data', 'nowhere'], 'nowhere'),
        (['--split', 'test'], 'test'),
        (['--threads', '-1'], 'threads: expected 0 to 256, found -1'),
        (['--threads', '257'], 'threads: expected 0 to 256, found 257'),
        (['--scales', '0', '1'], 'scales: expected positive numbers, found 0.0, 1.0'),
        (['--flip', '--backend', 'openvino'], 'backend openvino: works only for a model.onnx without --scales, --flip'),
        (['--flip', '--precision', 'fp99'], 'precision fp99: works only for a model.onnx without --scales, --flip'),
        (['--scales', 'nan'], 'scales: expected positive numbers, found nan'),
    ],
)
def test_wrong_argument_is_reported(arguments, message, data, capsys):
    assert main(['evaluate', str(DEFAULT_MODEL), '--data', str(data), '--threads', '1', *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert 'Traceback' not in error


def test_wrong_scale_or_device_is_reported(data, capsys):
    torch = pytest.importorskip('torch')
    cases = [(['--input-scale', '0'], 'input scale: expected')]
    cases += [] if torch.cuda.is_available() else [(['--device', 'cuda'], 'torch finds no CUDA device')]
    for arguments, message in cases:
        assert main(['evaluate', str(DEFAULT_MODEL), '--data', str(data), *arguments]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize('name', ['absent.onnx', 'absent.safetensors', 'text.onnx', 'folder'])
def test_file_that_is_not_a_network_is_named(name, data, tmp_path, capsys):
    (tmp_path / 'text.onnx').write_text('hello')
    (tmp_path / 'folder').mkdir()
    assert main(['evaluate', str(tmp_path / name), '--data', str(data)]) == 2
    assert f'{tmp_path / name}: ' in capsys.readouterr().err


def test_output_folder_is_checked_first(data, tmp_path, capsys):
    (tmp_path / 'mine').write_text('mine')
    for out, message in (
        (tmp_path, 'is not empty'),
        (tmp_path / 'mine', 'is a file, expected a folder'),
        (tmp_path / 'mine' / 'deeper' / 'report', 'mine/deeper/report: could not be written (Not a directory)'),
    ):
        assert main(['evaluate', 'absent.onnx', '--data', str(data), '--out', str(out)]) == 2
        assert message in capsys.readouterr().err


def test_interrupted_report_leaves_nothing(dataset, tmp_path):
    predictor = constant(3)
    evaluation = evaluate(predictor, dataset, [0, 1])

    def interrupt(image):
        raise KeyboardInterrupt

    broken = Predictor(interrupt, CAMVID, 'broken', predictor.protocol)
    for out in (tmp_path / 'out', tmp_path):
        with pytest.raises(KeyboardInterrupt):
            write_report(out, evaluation, broken, dataset, Path('m'), Path('d'), 'val')
        assert not list(tmp_path.iterdir())


def test_existing_empty_folder_is_used(data, tmp_path, monkeypatch, capsys):
    out = tmp_path / 'out'
    out.mkdir()
    monkeypatch.chdir(out)
    before = out.stat().st_ino
    arguments = ['evaluate', str(DEFAULT_MODEL), '--data', str(data), '--limit', '1', '--threads', '1', '--out', '.']
    assert main(arguments) == 0, capsys.readouterr().err
    assert sorted(path.name for path in out.iterdir()) == ['confusion.png', 'report.json', 'sheet.png']
    assert out.stat().st_ino == before
    assert main(arguments) == 2
    assert '. is not empty' in capsys.readouterr().err


def test_model_file_is_evaluated_without_torch(data):
    code = (
        'import sys; sys.modules["torch"] = None; from stdc_core.commands.main import main; '
        f'sys.exit(main(["evaluate", {str(DEFAULT_MODEL)!r}, "--data", {str(data)!r}, "--limit", "1", *sys.argv[1:]]))'
    )
    for scale in ([], ['--input-scale', '1', '--backend', 'onnxruntime']):
        result = subprocess.run([sys.executable, '-c', code, *scale], capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
    assert 'input scale 1, onnxruntime' in result.stdout
    result = subprocess.run([sys.executable, '-c', code, '--flip'], capture_output=True, text=True)
    assert result.returncode == 2
    assert "torch is missing; install it with: pip install '.[train]'" in result.stderr
