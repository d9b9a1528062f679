# SPDX-License-Identifier: Apache-2.0
"""The networks of published microcontroller latencies, and those latencies.

The four networks of MLPerf Tiny (Banbury et al., NeurIPS Datasets and Benchmarks 2021), the person
detection of tflite-micro (the same MobileNet on grey images) and the CIFAR-10 network of the
CMSIS-NN paper (Lai et al., arXiv 1801.06601, table 1).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import nn


def _conv(c_in: int, c_out: int, kernel: int | tuple[int, int], stride: int = 1,
          groups: int = 1, padding: int | tuple[int, int] | None = None,
          relu: bool = True) -> nn.Sequential:  # fmt: skip
    if padding is None:
        padding = kernel // 2 if isinstance(kernel, int) else (kernel[0] // 2, kernel[1] // 2)
    conv = nn.Conv2d(c_in, c_out, kernel, stride, padding, groups=groups)
    return nn.Sequential(conv, nn.ReLU()) if relu else nn.Sequential(conv)


class _Residual(nn.Module):
    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv(c_in, c_out, 3, stride), _conv(c_out, c_out, 3, relu=False))
        self.skip = nn.Identity() if stride == 1 else _conv(c_in, c_out, 1, stride, relu=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.skip(x))


def image_classification() -> nn.Module:
    """Return ResNet-8 for CIFAR-10: 12.5 million MACs."""
    return nn.Sequential(
        _conv(3, 16, 3), _Residual(16, 16, 1), _Residual(16, 32, 2), _Residual(32, 64, 2),
        nn.AvgPool2d(8), nn.Flatten(), nn.Linear(64, 10), nn.Softmax(1),
    )  # fmt: skip


def keyword_spotting() -> nn.Module:
    """Return DS-CNN for Speech Commands on 49 x 10 features: 2.7 million MACs."""
    layers: list[nn.Module] = [
        nn.ZeroPad2d((1, 1, 4, 5)), _conv(1, 64, (10, 4), 2, padding=0)
    ]  # fmt: skip
    for _ in range(4):
        layers += [_conv(64, 64, 3, groups=64), _conv(64, 64, 1)]
    head = [nn.AvgPool2d((25, 5)), nn.Flatten(), nn.Linear(64, 12), nn.Softmax(1)]
    return nn.Sequential(*layers, *head)


def visual_wake_words(channels: int = 3) -> nn.Module:
    """Return MobileNetV1 0.25 for 96 x 96: 7.5 million MACs in colour."""
    layers: list[nn.Module] = [_conv(channels, 8, 3, 2)]
    width = 8
    for c_out, stride in (
        (16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), *[(128, 1)] * 5, (256, 2), (256, 1)
    ):  # fmt: skip
        layers += [_conv(width, width, 3, stride, groups=width), _conv(width, c_out, 1)]
        width = c_out
    head = [nn.AvgPool2d(3), nn.Flatten(), nn.Linear(256, 2), nn.Softmax(1)]
    return nn.Sequential(*layers, *head)


def person_detection() -> nn.Module:
    """Return tflite-micro's example: the network above on grey images."""
    return visual_wake_words(channels=1)


def anomaly_detection() -> nn.Module:
    """Return the dense autoencoder for ToyADMOS: 0.26 million MACs."""
    widths = (640, 128, 128, 128, 128, 8, 128, 128, 128, 128)
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(128, 640))


def cifar10_cnn() -> nn.Module:
    """Return the three 5 x 5 convolutions of the CMSIS-NN paper: 12.3 million MACs."""
    layers: list[nn.Module] = []
    for a, b in ((3, 32), (32, 32), (32, 64)):
        layers += [_conv(a, b, 5), nn.MaxPool2d(3, 2, 1)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(1024, 10))


#: Factory and input by short name.
NETWORKS = {
    "ic": (image_classification, (1, 3, 32, 32)),
    "kws": (keyword_spotting, (1, 1, 49, 10)),
    "vww": (visual_wake_words, (1, 3, 96, 96)),
    "ad": (anomaly_detection, (1, 640)),
    "person": (person_detection, (1, 1, 96, 96)),
    "cifar10": (cifar10_cnn, (1, 3, 32, 32)),
}


@dataclass(frozen=True)
class Published:
    """Latencies of one system.

    Args:
        core: Name of the target.
        clock_mhz: Of the system.
        latency_ms: By network.
        source: Who published it, on which board, with which software.
        fitted: Whether the model's constants were fitted to it.
    """

    core: str
    clock_mhz: float
    latency_ms: dict[str, float]
    source: str
    fitted: bool = False


def _from_rates(**per_second: float) -> dict[str, float]:
    return {name: 1e3 / rate for name, rate in per_second.items()}


#: MLPerf Tiny publishes inferences a second; github.com/mlcommons/tiny_results_vX.Y.
PUBLISHED = (
    Published("cortex-m4", 120, _from_rates(ic=2.567, vww=3.320, kws=10.019, ad=116.212),
              "MLPerf Tiny v1.0, OctoML: NUCLEO-L4R5ZI, microTVM with CMSIS-NN", True),
    Published("cortex-m4", 200, _from_rates(ic=5.833, vww=10.129, kws=21.652, ad=204.635),
              "MLPerf Tiny v1.1, Nuvoton: NuMaker-M467HJ, ONNC with CMSIS-NN"),
    Published("cortex-m4", 120, _from_rates(ic=3.372, vww=5.056),
              "MLPerf Tiny v1.1, Skymizer: NUCLEO-L4R5ZI, ONNC with CMSIS-NN"),
    Published("cortex-m4", 100, {"person": 386.595},
              "github.com/Samsung/ONE/issues/7598: NUCLEO-F413ZH, TFLM with CMSIS-NN"),
    Published("cortex-m7", 280, {
        name: 120 / 280 * 1e3 / octo * (280 * st_m4) / (120 * st_m7)
        for name, octo, st_m4, st_m7 in (
            ("ic", 2.567, 4.407, 18.401), ("vww", 3.320, 4.339, 19.722),
            ("kws", 10.019, 13.323, 59.667), ("ad", 116.212, 131.950, 547.705),
        )
    }, "MLPerf Tiny v1.0: OctoML's Cortex-M4 cycles times STMicroelectronics' ratio of cores",
              True),
    Published("cortex-m7", 216, {"cifar10": 99.1},
              "Lai et al., arXiv 1801.06601: NUCLEO-F746ZG, CMSIS-NN of 2018"),
    Published("cortex-m33", 200, _from_rates(ic=4.062, vww=6.159, kws=19.774, ad=216.772),
              "MLPerf Tiny v0.7, Renesas: EK-RA6M4, TFLM with CMSIS-NN", True),
    Published("cortex-m33", 128, _from_rates(ic=3.163, vww=4.310, kws=13.143, ad=159.579),
              "MLPerf Tiny v1.0, OctoML: nRF5340 DK, microTVM with CMSIS-NN"),
    Published("cortex-m85", 480, _from_rates(ic=117.948, vww=74.665, kws=288.611, ad=1884.138),
              "MLPerf Tiny v1.2, Renesas: EK-RA8D1, TFLM with CMSIS-NN", True),
)  # fmt: skip

#: Layers of MobileNetV2 at 224 x 224 on an Alif E8 (Cortex-M55), in cycles, with CMSIS-NN:
#: input channels, output channels, kernel, stride, groups, input size, cycles.
#: github.com/pytorch/executorch/issues/17651; the constants of cortex-m55 were fitted to them.
ALIF_E8_LAYERS = (
    (3, 32, 3, 2, 1, 224, 13_754_047), (32, 32, 3, 1, 32, 112, 13_715_766),
    (32, 16, 1, 1, 1, 112, 4_915_937), (16, 96, 1, 1, 1, 112, 24_249_462),
    (96, 96, 3, 2, 96, 112, 10_286_711), (96, 24, 1, 1, 1, 56, 2_791_555),
    (24, 144, 1, 1, 1, 56, 10_329_014), (144, 144, 3, 1, 144, 56, 15_319_785),
)  # fmt: skip
