"""Measure what the embedded model needs to compute in 8-bit integers: ranges of its maps, corrections of its biases.

    python tools/aerial_int8.py --data ../shared/data

Runs the shipped weights in float32 over every 20th image of UC Merced and two synthetic cities, each at the sizes of
the model's views, and writes `src/semicdvl/vlms/aerial/aerial_int8.safetensors`. No image of a benchmark is among them.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from aerial_data import SCENE_GSD_M, Image, read_rgb
from semicdvl.atomic_files import hash_file
from semicdvl.synthetic.config import CitySpec
from semicdvl.synthetic.generate import generate_city
from semicdvl.vlms.aerial.build import WEIGHTS_PATH, build_aerial
from semicdvl.vlms.aerial.encoder import InvertedResidual, SeparableBlock
from semicdvl.vlms.aerial.inference_net import make_input
from semicdvl.vlms.aerial.int8_net import MEASURED_PATH, RANGE, SHIFT, quantise_weight
from semicdvl.vlms.aerial.model import NATIVE_GSD_M, TEST_TIME_VIEWS, resample_tile
from semicdvl.vlms.aerial.net import AerialNet

SCENE_STEP = 20
CITY_SEEDS = (7001, 7002)
CITY_PX = 512


def list_images(data: Path) -> Iterator[Image]:
    """Yield the images at the native resolution."""
    for path in sorted((data / "ucmerced").glob("*/*.jpg"))[::SCENE_STEP]:
        yield resample_tile(read_rgb(path), SCENE_GSD_M / NATIVE_GSD_M)
    for seed in CITY_SEEDS:
        city = generate_city(CitySpec(size_px=CITY_PX, seed=seed))
        yield from (city.t1_HWC, city.t2_HWC)


class Recorder:
    """What is measured on a network with folded batch norms while images pass through it."""

    def __init__(self, net: AerialNet) -> None:
        """Watch a network from now on."""
        self.ranges: dict[str, Tensor] = {}
        self.means: dict[str, list[Tensor]] = {}
        for name, module in net.named_modules():
            if isinstance(module, nn.Conv2d) and module is not net.head:
                module.register_forward_pre_hook(partial(self._add_mean, name))
            elif isinstance(module, InvertedResidual | SeparableBlock) or name == "smooth.1":
                module.register_forward_hook(partial(self._widen_by_output, name))
        for level, smooth in enumerate(net.smooth):
            smooth.register_forward_pre_hook(partial(self._widen_by_input, f"smooth.{level}.in"))

    def compute_shifts(self, net: AerialNet) -> dict[str, Tensor]:
        """Return the mean of what the rounding of the weights takes away from each channel, by convolution."""
        shifts = {}
        for name, means in self.means.items():
            weight_EDHW = net.get_submodule(name).get_parameter("weight").float()
            steps_EDHW, scales_E = quantise_weight(weight_EDHW)
            lost_ED = (weight_EDHW - steps_EDHW * scales_E[:, None, None, None]).sum(dim=(2, 3))
            mean_D = torch.stack(means).mean(dim=0)
            shifts[name] = lost_ED @ mean_D if lost_ED.shape[1] == len(mean_D) else lost_ED[:, 0] * mean_D  # depthwise
        return shifts

    def _add_mean(self, name: str, _: nn.Module, maps: tuple[Tensor]) -> None:
        self.means.setdefault(name, []).append(maps[0].mean(dim=(0, 2, 3)))

    def _widen_by_input(self, name: str, _: nn.Module, maps: tuple[Tensor]) -> None:
        found_2 = torch.stack([maps[0].min(), maps[0].max()])
        before_2 = self.ranges.get(name, found_2)
        self.ranges[name] = torch.stack(
            [torch.minimum(before_2[0], found_2[0]), torch.maximum(before_2[1], found_2[1])]
        )

    def _widen_by_output(self, name: str, module: nn.Module, _: tuple[Tensor], given_BDHW: Tensor) -> None:
        self._widen_by_input(name, module, (given_BDHW,))


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the folder ucmerced")
    images = list(list_images(parser.parse_args().data))
    net = build_aerial(dtype="float32").inference_net
    assert isinstance(net, AerialNet)
    recorder = Recorder(net)
    with torch.inference_mode():
        for image_HWC in images:
            for view in TEST_TIME_VIEWS[3]:
                net.fuse_pyramid(net.encoder(make_input(resample_tile(image_HWC, view.magnification), like=net)))
        shifts = recorder.compute_shifts(net)
    tensors = {RANGE + name: values_2.clone() for name, values_2 in recorder.ranges.items()}
    tensors |= {SHIFT + name: shift_E.clone() for name, shift_E in shifts.items()}
    save_file(tensors, MEASURED_PATH, metadata={"weights": hash_file(WEIGHTS_PATH)})
    MEASURED_PATH.chmod(0o644)
    print(f"{len(recorder.ranges)} maps and {len(shifts)} convolutions over {len(images)} images")


if __name__ == "__main__":
    main()
