from __future__ import annotations

from typing import ClassVar

import paper_003_counts as counts
import pytest
import torch
from network_tester import NetworkTester

from leanseg.networks import build
from leanseg.networks.tumour_modules import resized


class TestLocalisedUNet(NetworkTester):
    name = "localised-unet"
    options: ClassVar = {"base_filters": 2}
    size = (32, 48)
    # A bias of the keys adds the same to all of a softmax's arguments.
    without_gradient = r".*\.conv\.bias|.*\.key\.bias"
    published: ClassVar = {
        # Running statistics: those of the multi-scale U-Net, and of the reduction to 8f.
        "localised-unet": (112_146_756, 112_146_756 + 2 * (13_824 + 512)),
        "localised-unet-half": (28_054_692, 28_054_692 + 2 * (6_912 + 256)),
        "localised-unet-quarter": (7_022_676, 7_022_676 + 2 * (3_456 + 128)),
    }

    @pytest.mark.slow
    def test_onnx(self, tmp_path):
        super().test_onnx(tmp_path)


def test_counts_by_hand():
    for filters, name in ((64, ""), (32, "-half"), (16, "-quarter")):
        trainable, _ = TestLocalisedUNet.published[f"localised-unet{name}"]
        assert trainable == counts.localised(filters)


def test_the_decoder_goes_on_from_the_localised_centre():
    network, seen = build("localised-unet", base_filters=2).eval(), {}
    for name in ("reduce", "localisation", "backbone.decoder.0", "head"):
        network.get_submodule(name).register_forward_hook(
            lambda _, given, out, name=name: seen.update({name: (given[0], out)})
        )
    images = torch.randn(1, 1, 32, 48)
    with torch.no_grad():
        found, last = network.all_maps(images)
        centre, skips = network.backbone.encode(images)
    assert torch.equal(seen["reduce"][0], centre)
    assert seen["reduce"][1].shape == (1, 16, 2, 3)
    assert torch.equal(seen["localisation"][0], seen["reduce"][1])
    located, first = seen["localisation"][1]
    assert torch.equal(seen["backbone.decoder.0"][0], located)
    assert torch.equal(found, resized(first, 16))
    assert torch.equal(last, seen["head"][1])
    assert torch.equal(seen["head"][0], network.backbone.decode(located, skips)[-1])
