"""The plan of a synthetic city: nothing overlaps, blocks and streets tile the world, geometry is exact."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semicdvl.synthetic.layout.blocks import fill_block
from semicdvl.synthetic.layout.buildings import BUILDING_MAKERS, make_terrace
from semicdvl.synthetic.layout.geometry import cut_polygon, inset_polygon, measure_area, measure_signed_area
from semicdvl.synthetic.layout.scene import ScenePlanner
from semicdvl.synthetic.layout.streets import WORLD_PADDING_M, plan_streets

SEEDS = (0, 3, 5)


@pytest.mark.parametrize("seed", range(5))
def test_buildings_overlap_no_street_no_water_and_no_other_building(seed):
    rng = np.random.default_rng(seed)
    plan = plan_streets(rng, width_m=300, height_m=230)
    sketch = ScenePlanner(rng, plan)
    for number in range(len(plan.blocks)):
        fill_block(sketch, number)
    count = np.zeros(sketch.taken_HW.shape, np.uint8)
    streets = np.zeros_like(count)
    for site in sketch.sites:
        mask = np.zeros_like(count)
        cv2.fillPoly(mask, [np.round(site.building.rings[0] - 0.5).astype(np.int32)], 1)
        count += mask
    for street in [*plan.streets, *([plan.river] if plan.river else [])]:
        cv2.fillPoly(streets, [np.round(street.outline_N2 - 0.5).astype(np.int32)], 1)
    assert len(sketch.sites) > 5
    assert count.max() == 1
    assert not (streets & count).any()


@pytest.mark.parametrize("seed", SEEDS)
def test_blocks_and_streets_tile_the_world(seed):
    plan = plan_streets(np.random.default_rng(seed), width_m=400, height_m=310)
    covered = np.zeros([int(v * 2) for v in plan.size_m[::-1]], np.uint8)
    outlines = [s.outline_N2 for s in plan.streets] + [b.kerb_N2 for b in plan.blocks]
    for outline in [*outlines, *([plan.banks.outline_N2] if plan.banks else [])]:
        cv2.fillPoly(covered, [np.round(outline * 2).astype(np.int32)], 1)
    margin = int(WORLD_PADDING_M * 2)
    seen = covered[margin:-margin, margin:-margin]
    assert seen.mean() > 0.97  # the rest are rounded corners and slivers left as tarmac


@pytest.mark.parametrize("maker", [*BUILDING_MAKERS, "terrace"])
def test_building_outlines(maker):
    rng = np.random.default_rng(5)
    forms = set()
    for _ in range(60):
        built = make_terrace(rng, "tile_red", 4) if maker == "terrace" else BUILDING_MAKERS[maker](rng, "tile_red")
        built = built.move_to(40.0, 30.0, 0.7)
        shape = built.to_polygon()
        union = sum((u1 - u0) * (v1 - v0) for u0, v0, u1, v1 in built.wings)
        assert shape.is_valid
        assert 20 < shape.area <= union + 1e-6
        assert 2.5 < built.height_m < 31
        forms.add((len(shape.exterior.coords), len(shape.interiors)))
    assert len(forms) >= {"apartments": 4, "terrace": 1}.get(maker, 2)


@given(
    angle=st.floats(0, np.pi),
    offset=st.floats(-30, 30),
    gap=st.floats(0.5, 12),
    corners=st.integers(3, 9),
)
@settings(max_examples=60, deadline=None)
def test_cut_loses_only_the_gap(angle, offset, gap, corners):
    turn = np.linspace(0, 2 * np.pi, corners + 1)[:-1]
    outline = np.stack([np.cos(turn) * 60, np.sin(turn) * 45], 1)
    point = offset * np.array([-np.sin(angle), np.cos(angle)])
    parts = cut_polygon(outline, point, angle, gap)
    lost = measure_area(outline) - sum(measure_area(part) for part in parts)
    assert -1e-6 <= lost <= gap * 121
    assert all(measure_signed_area(part) * measure_signed_area(outline) > -1e-9 for part in parts)


def test_inset_of_a_rectangle():
    box = np.array([[0.0, 0], [40, 0], [40, 30], [0, 30]])
    for ring in (box, box[::-1]):
        assert measure_area(inset_polygon(ring, 5.0)) == pytest.approx(30 * 20)
    assert len(inset_polygon(box, 16.0)) == 0
