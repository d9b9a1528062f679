# SPDX-License-Identifier: Apache-2.0
"""Random small networks: what is traced computes what the network computes."""

from __future__ import annotations

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from chipfit.graph.capture import capture
from chipfit.graph.execute import WorkloadModule

SIZE = 8


def _attention(x):
    q = x.flatten(2).transpose(1, 2)
    scores = torch.einsum("bid,bjd->bij", q, q) / q.shape[-1] ** 0.5
    y = (scores + scores.new_zeros(1)).softmax(-1) @ q
    return y.transpose(1, 2).reshape(x.shape)


def _windows(x):
    n, c, h, w = x.shape
    y = x.roll((1, -1), (2, 3)).reshape(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 3, 5, 1)
    y = y - y.mean((3, 4), keepdim=True)
    return y.permute(0, 5, 1, 3, 2, 4).reshape(x.shape)


def _write(x):
    y = torch.zeros_like(x)
    y[:, : x.shape[1] // 2, 1:] = x[:, x.shape[1] // 2 :][:, : x.shape[1] // 2, :-1]
    return y + x


def _mask(x):
    keep = torch.ones(SIZE, SIZE, dtype=torch.bool).tril()
    return torch.where(keep, x, -x).masked_fill(~keep, 0.5)


#: Steps ``(N, C, 8, 8) -> (N, C, 8, 8)`` that need no weights.
PLAIN = {
    "relu": F.relu, "gelu": F.gelu, "silu": lambda x: x * torch.sigmoid(x),
    "clamp": lambda x: x.clamp(-0.5, 0.7), "hardtanh": F.hardtanh, "neg": lambda x: 1 - x,
    "pad": lambda x: F.pad(x, (1, -1, 0, 0)),
    "reflect": lambda x: F.pad(x, (1, 1, 2, 0), mode="reflect")[:, :, 2:, 1:-1],
    "circular": lambda x: F.pad(x, (1, 0, 0, 1), mode="circular")[..., 1:, :-1],
    "replicate": lambda x: F.max_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1),
    "pool": lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
    "scale": lambda x: F.interpolate(F.max_pool2d(x, 2), scale_factor=2, mode="bilinear"),
    "bicubic": lambda x: F.interpolate(x[..., ::2, :], (SIZE, SIZE), mode="bicubic"),
    "flip": lambda x: x.flip(1, 3), "gather": lambda x: x[:, :, [3, 0, 1, 2, 7, 6, 6, 4]],
    "normalise": lambda x: F.normalize(x, dim=1), "square": lambda x: x**2 - x.abs() ** 1.5,
    "split": lambda x: torch.cat(x.split([1, x.shape[1] - 1], 1)[::-1], 1),
    "attention": _attention, "windows": _windows, "write": _write, "mask": _mask,
    "var": lambda x: x - x.var(1, keepdim=True) + x.std((2, 3), keepdim=True),
    "columns": lambda x: F.fold(F.unfold(x, 3, padding=1), (SIZE, SIZE), 3, padding=1) / 9,
    "strided": lambda x: x.unfold(2, 2, 2).flip(-1).flatten(3).reshape(x.shape),
    "repeat": lambda x: x.repeat(1, 2, 1, 1)[:, ::2], "max": lambda x: x - x.max(1, True)[0],
    "interleave": lambda x: x.repeat_interleave(2, 3)[..., 1::2],
    "gate": lambda x: F.glu(torch.cat([x, x], 1), 1), "adaptive": lambda x:
        x + F.interpolate(F.adaptive_avg_pool2d(x, 3), (SIZE, SIZE)),
    "extreme": lambda x: torch.maximum(x, -x).minimum(x + 1), "cumulate": lambda x: x.cumsum(2) / 8,
    "exponent": lambda x: x.exp().clamp(max=3).log1p() - torch.rsqrt(x * x + 1),
}  # fmt: skip


class Channels(nn.Module):
    """Efficient channel attention: a convolution along the channels."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1)

    def forward(self, x):
        return x * self.conv(x.mean((2, 3)).unsqueeze(1)).sigmoid().squeeze(1)[..., None, None]


def weighted(kind: str, channels: int) -> nn.Module:
    """Return a step with weights for ``channels`` channels."""
    makers = {
        "conv": lambda: nn.Conv2d(channels, channels, 3, padding=1),
        "depthwise": lambda: nn.Conv2d(channels, channels, 3, padding=2, dilation=2,
                                       groups=channels, bias=False),
        "norm": lambda: nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False),
                                      nn.BatchNorm2d(channels), nn.Hardswish()),
        "up": lambda: nn.Sequential(nn.MaxPool2d(2), nn.ConvTranspose2d(channels, channels, 2, 2)),
        "group": lambda: nn.GroupNorm(1, channels), "eca": Channels,
        "instance": lambda: nn.InstanceNorm2d(channels, affine=True),
        "linear": lambda: nn.Linear(SIZE, SIZE), "layer": lambda: nn.LayerNorm(SIZE, bias=False),
        "rms": lambda: nn.RMSNorm(SIZE), "prelu": lambda: nn.PReLU(channels),
    }  # fmt: skip
    return makers[kind]()


WEIGHTED = ("conv", "depthwise", "norm", "up", "group", "eca", "instance", "linear", "layer",
            "rms", "prelu")  # fmt: skip


class Random(nn.Module):
    """Steps in a row; each may branch off any earlier tensor and join by addition or product."""

    def __init__(self, channels: int, steps: list[tuple[str, int, str]]) -> None:
        super().__init__()
        self.stem, self.steps = nn.Conv2d(3, channels, 1), steps
        made = {str(i): weighted(kind, channels) for i, (kind, _, _) in enumerate(steps)
                if kind in WEIGHTED}  # fmt: skip
        self.layers = nn.ModuleDict(made)
        self.head = nn.Linear(channels, 5)

    def forward(self, x):
        seen = [self.stem(x)]
        for i, (kind, back, join) in enumerate(self.steps):
            source = seen[-1 - back % len(seen)]
            step = self.layers[str(i)] if str(i) in self.layers else PLAIN[kind]
            y = step(source)
            if join == "add":
                y = y + seen[-1]
            elif join == "mul":
                y = y * seen[-1].sigmoid()
            seen.append(y)
        return self.head(seen[-1].mean((2, 3))), *seen


STEP = st.tuples(
    st.sampled_from([*PLAIN, *WEIGHTED]), st.integers(0, 2), st.sampled_from(["", "add", "mul"])
)


@settings(max_examples=60, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.too_slow])  # fmt: skip
@given(channels=st.sampled_from([2, 3, 6]), steps=st.lists(STEP, min_size=1, max_size=8),
       seed=st.integers(0, 99))  # fmt: skip
def test_program_equals_the_network(channels, steps, seed):
    torch.manual_seed(seed)
    net = Random(channels, steps).double().eval()
    x = torch.randn(1, 3, SIZE, SIZE, dtype=torch.float64)
    program = capture(net, x)
    assert all(n.op.kind != "unsupported" for n in program.workload.nodes)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        want = net(0.5 - x)
    assert program.workload.macs == counter.get_total_flops() // 2
    got = WorkloadModule(program).double()(0.5 - x)
    for a, b in zip(got, want, strict=True):
        assert float((a - b).abs().max()) <= 1e-4 * max(float(b.abs().max()), 1.0)


def test_every_step_alone():
    x = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    for kind in (*PLAIN, *WEIGHTED):
        net = Random(6, [(kind, 0, "")]).eval()
        program = capture(net, x)
        unknown = [n.op["aten"] for n in program.workload.nodes if n.op.kind == "unsupported"]
        assert not unknown, kind
        with torch.no_grad():
            torch.testing.assert_close(WorkloadModule(program)(x), net(x), rtol=1e-4, atol=1e-5)
