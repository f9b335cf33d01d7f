"""Identities are stored with results and interrupted runs: they stay as they are when code moves or is renamed."""

from __future__ import annotations

import importlib

import pytest

from semicdvl.detection.detectors.network_loaders import EncoderMaps
from semicdvl.detection.detectors.unsupervised import build_unsupervised_detector
from semicdvl.detection.fingerprint import identify_detector
from semicdvl.unsupervised import UNSUPERVISED
from semicdvl.unsupervised.common.clip import ClipClassifier
from semicdvl.unsupervised.common.sam import SamMaskGenerator


class Encoder:
    channels = (4, 8, 16, 32)


NETWORKS = {
    "features": EncoderMaps("efficientnet_lite0-abc", Encoder()),
    "sam": SamMaskGenerator(None, None, "sam2-xyz"),
    "clip": ClipClassifier(None, None, ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)), "clip-uvw"),
}
USES = {"cnn_cd": ["features"], "dcva": ["features"], "gmcd": ["features"], "dino_cva": ["features"]} | {
    "any_change": ["sam"],
    "scm": ["sam", "clip"],
}
OPTIONS = {"any_change": {"points": [[1, 2]]}}
STORED = {
    "cva": (
        "semicdvl.classic.cva.CVA",
        "rule=(threshold='otsu', guard=True, shapeless=True), name='cva', planes_count=1",
    ),
    "log_ratio": (
        "semicdvl.classic.log_ratio.LogRatio",
        "rule=(threshold='otsu', guard=True, shapeless=True), offset=32.0, name='log_ratio', planes_count=1",
    ),
    "irmad": (
        "semicdvl.classic.irmad.IRMAD",
        "rule=(threshold='otsu', guard=True, shapeless=True), rounds=50, tolerance=0.001, name='irmad', planes_count=1",
    ),
    "pca_km": (
        "semicdvl.classic.pca_km.PCAKM",
        "block_px=4, components=3, matched=True, guard=True, seed=0, sample=100000, name='pca_km', planes_count=2",
    ),
    "dsfa": (
        "semicdvl.classic.dsfa.DSFA",
        "rule=(threshold='otsu', guard=True, shapeless=True), pixels=2000, steps=200, rate=0.001, seed=0, "
        "name='dsfa', planes_count=1",
    ),
    "cnn_cd": (
        "semicdvl.classic.cnn_cd.CNNCD",
        "features=(identity='efficientnet_lite0-abc'), layers=(0, 1, 2, 3), rule=(threshold='otsu', "
        "guard=True, shapeless=True), name='cnn_cd', planes_count=1",
    ),
    "dcva": (
        "semicdvl.classic.dcva.DCVA",
        "features=(identity='efficientnet_lite0-abc'), layers=(0, 1, 2), kept_frac=0.1, saturate=0.95, "
        "rule=(threshold='otsu', guard=True, shapeless=True), seed=0, learned=(), name='dcva', planes_count=1",
    ),
    "gmcd": (
        "semicdvl.classic.gmcd.GMCD",
        "features=(identity='efficientnet_lite0-abc'), layer=2, nodes=2048, neighbours=8, steps=80, "
        "guard=True, seed=0, name='gmcd', planes_count=2",
    ),
    "dino_cva": (
        "semicdvl.classic.dino_cva.DinoCVA",
        "features=(identity='efficientnet_lite0-abc'), rule=(threshold='otsu', guard=True, shapeless=True), "
        "name='dino_cva', planes_count=1",
    ),
    "any_change": (
        "semicdvl.classic.any_change.AnyChange",
        "sam=(identity='sam2-xyz', grid=32, rating=0.5, stability=0.95, same_iou=0.7, most_frac=0.8, "
        "most=1000, batch=64), rule=(threshold=25.0, guard=True, shapeless=True), points=((1, 2),), "
        "point_date=1, query_angle=60.0, name='any_change', planes_count=1",
    ),
    "scm": (
        "semicdvl.classic.scm.SCM",
        "sam=(identity='sam2-xyz', grid=32, rating=0.5, stability=0.95, same_iou=0.7, most_frac=0.8, "
        "most=1000, batch=64), clip=(normal=((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)), identity='clip-uvw'), "
        "find=('building', 'house', 'roof', 'apartment block', 'warehouse', 'shed', 'factory'), "
        "rest=('road', 'parking lot', 'bare land', 'grass', 'tree', 'field', 'water', 'car', 'sports field', "
        "'shadow'), rule=(threshold='otsu', guard=True, shapeless=True), name='scm', planes_count=2",
    ),
}


def build(name, **options):
    module, _, builder = UNSUPERVISED[name].partition(":")
    networks = {argument: NETWORKS[argument] for argument in USES.get(name, [])}
    return getattr(importlib.import_module(module), builder)(**networks, **options)


def test_every_method_has_a_stored_identity():
    assert STORED.keys() == UNSUPERVISED.keys()


@pytest.mark.parametrize("name", STORED)
def test_identities_are_the_stored_ones(name):
    kind, identity = STORED[name]
    assert identify_detector(build(name, **OPTIONS.get(name, {}))) == {"kind": kind, "identity": identity}


def test_options_are_part_of_the_identity():
    detector = build_unsupervised_detector("cva", {"threshold": 3.5, "guard": False})
    assert detector.identity == "rule=(threshold=3.5, guard=False, shapeless=True), name='cva', planes_count=1"
