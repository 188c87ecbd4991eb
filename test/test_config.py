# SPDX-License-Identifier: Apache-2.0
"""Test the files in config/ against the code."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import ros_helpers  # noqa: F401  (isolates this run; before rclpy)
import yaml
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from stdc_core.inference import Segmenter
from stdc_ros.node.camera import OUTPUTS, POINTS
from stdc_ros.node.parameters import Parameters

ROOT = Path(__file__).parent.parent


def test_parameter_file_has_every_parameter_with_its_default():
    content = yaml.safe_load((ROOT / 'config' / 'segmentation.yaml').read_text())
    # ROS lists have no default, so they are comments in the file.
    defaults = {name: value for name, value in asdict(Parameters()).items() if value != ()}
    assert content == {'/**': {'ros__parameters': defaults}}


def test_parameter_file_explains_every_list():
    text = (ROOT / 'config' / 'segmentation.yaml').read_text()
    for name in (name for name, value in asdict(Parameters()).items() if value == ()):
        example = next(line for line in text.splitlines() if line.startswith(f'    # {name}: '))
        assert isinstance(yaml.safe_load(example.lstrip('# '))[name], list)


def test_costmap_file_names_existing_topics_and_classes():
    costmap = yaml.safe_load((ROOT / 'config' / 'nav2_semantic_segmentation_layer.yaml').read_text())
    layer = costmap['local_costmap']['local_costmap']['ros__parameters']['semantic_segmentation_layer']['camera']
    outputs = {*OUTPUTS, 'label_info'}
    topics = [layer[name] for name in ('segmentation_topic', 'confidence_topic', 'labels_topic')]
    assert all(topic.removeprefix('/segmentation/') in outputs for topic in topics)
    named = {name for kind in layer['class_types'] for name in layer[kind]['classes']}
    assert named == set(Segmenter.load().info.classes.names) - {'sky'}


def test_costmap_file_explains_the_ignored_class():
    text = (ROOT / 'config' / 'nav2_semantic_segmentation_layer.yaml').read_text()
    comments = ' '.join(line.lstrip('# ') for line in text.splitlines() if line.startswith('#'))
    layer = yaml.safe_load(text)['local_costmap']['local_costmap']['ros__parameters']['semantic_segmentation_layer']
    named = {name for kind in layer['camera']['class_types'] for name in layer['camera'][kind]['classes']}
    for name in set(Segmenter.load().info.classes.names) - named:
        # As the layer logs it, so that a search for the message finds the file.
        assert f"CRITICAL ERROR: Class '{name}' from label_info is not defined in the costmap parameters!" in comments


def test_points_costmap_file_names_existing_topics_and_classes():
    text = (ROOT / 'config' / 'nav2_points_layer.yaml').read_text()
    layer = yaml.safe_load(text)['local_costmap']['local_costmap']['ros__parameters']['obstacle_layer']
    assert layer['observation_sources'].split() == ['painted', 'free']
    assert layer['painted']['topic'] == f'/segmentation/{POINTS}'
    named = set(re.search(r'points_only: \[(.*)\]', text)[1].split(', '))
    assert set(Segmenter.load().info.classes.names) - named == {'sky', 'road', 'sidewalk'}


def test_foxglove_layout_shows_existing_topics():
    layout = json.loads((ROOT / 'config' / 'foxglove_layout.json').read_text())
    panels = layout['configById']

    def leaves(part: Any) -> list[str]:
        return [part] if isinstance(part, str) else [*leaves(part['first']), *leaves(part['second'])]

    assert sorted(leaves(layout['layout'])) == sorted(panels)
    camera = {'/camera/image_raw', '/camera/camera_info'}
    node = {f'/segmentation/{name}' for name in (*OUTPUTS, 'label_info', 'performance')}
    shown = set()
    for panel in panels.values():
        shown |= {*panel.get('imageMode', {}).values(), *panel.get('topics', {})}
        shown |= {panel[key].partition('.')[0] for key in ('topicPath', 'topicToRender') if key in panel}
    assert shown <= {*camera, *node, '/diagnostics'}
    wanted = ('overlay', 'color_mask', 'label_info', 'drivable_grid', 'performance')
    assert shown >= {'/camera/image_raw', '/diagnostics', *(f'/segmentation/{name}' for name in wanted)}


def test_foxglove_layout_shows_existing_fields():
    panels = json.loads((ROOT / 'config' / 'foxglove_layout.json').read_text())['configById']
    (path,) = [
        panel['topicPath']
        for panel in panels.values()
        if panel.get('topicPath', '').startswith('/segmentation/performance.')
    ]
    message = DiagnosticArray(status=[DiagnosticStatus(values=[KeyValue(key='a', value='b')])])
    for name in path.replace('[:]', '').split('.')[1:]:
        message = getattr(message, name)[0]
    assert message == KeyValue(key='a', value='b')


def test_rviz_shows_existing_outputs():
    displays = yaml.safe_load((ROOT / 'config' / 'segmentation.rviz').read_text())['Visualization Manager']['Displays']
    topics = [display['Topic']['Value'] for display in displays]
    assert topics
    assert all(topic.removeprefix('/segmentation/') in {*OUTPUTS, POINTS} for topic in topics)


def test_fast_dds_profile_is_large_enough_for_1080p():
    root = ElementTree.parse(ROOT / 'config' / 'fastdds.xml').getroot()
    texts = {element.tag.rpartition('}')[2]: (element.text or '').strip() for element in root.iter()}
    assert int(texts['segment_size']) == 64 * 2**20
    assert int(texts['maxMessageSize']) == 16 * 2**20
    assert [element.text for element in root.iter() if element.tag.endswith('type')] == ['SHM', 'UDPv4']
