"""Networks that between them use every operator the tracer knows."""

import torch
from torch import nn
from torch.nn import functional as F


class SqueezeExcite(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, 4, 1), nn.Conv2d(4, channels, 1)

    def forward(self, x):
        gate = self.up(F.relu(self.down(x.mean((2, 3), keepdim=True))))
        return x * F.hardsigmoid(gate)


class OldSqueezeExcite(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.fc = nn.Sequential(nn.Linear(channels, 4), nn.ReLU(), nn.Linear(4, channels))

    def forward(self, x):
        n, c, _, _ = x.size()
        gate = torch.sigmoid(self.fc(F.adaptive_avg_pool2d(x, 1).view(n, c))).view(n, c, 1, 1)
        return x * gate.expand_as(x)


class Convolutions(nn.Module):
    """Grouped, depthwise, dilated, asymmetric, string padding, padding by hand, ceil mode."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.ZeroPad2d((0, 1, 0, 1)),
            nn.Conv2d(3, 8, 3, 2, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU6(),
        )
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.multiplier = nn.Conv2d(8, 16, 3, padding=1, groups=8)
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.dilated = nn.Conv2d(16, 12, 3, padding=2, dilation=2)
        self.wide = nn.Conv2d(12, 12, (1, 5), padding="same")
        self.tall = nn.Conv2d(12, 12, (5, 1), padding=(2, 0))
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.average = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
        self.excite, self.old = SqueezeExcite(12), OldSqueezeExcite(12)

    def forward(self, x):
        x = self.multiplier(self.depthwise(self.stem(x)))
        x = F.leaky_relu(self.grouped(x), 0.1)
        x = F.hardswish(self.wide(F.silu(self.dilated(x)))) + self.tall(self.dilated(x))
        x = self.excite(self.average(self.pool(x)))
        return self.old(x)


class Movement(nn.Module):
    """Concatenation, slices, chunks, shuffles, permutes, reshapes, resizes."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 1)
        self.mix = nn.Conv2d(16, 16, 1)
        self.last = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        y = torch.cat([self.a(x), self.b(x)], 1)
        n, c, h, w = y.shape
        y = y.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)
        left, right = self.mix(y).chunk(2, dim=1)
        y = torch.cat([torch.tanh(left), right[:, ::2], right[:, 1::2]], dim=1)
        y = F.pixel_shuffle(y, 2)
        y = F.interpolate(self.last(y), scale_factor=2, mode="nearest")
        y = F.interpolate(y, size=(h, w), mode="bilinear", align_corners=False)
        y = F.pad(y, (1, 1, 0, 0)).permute(0, 2, 3, 1)
        return torch.stack([y, -y], 1).flatten(1).unsqueeze(1).squeeze(1)


class Transformer(nn.Module):
    """Patches, a class token, attention by hand, layer norm, GELU."""

    def __init__(self, width=16, heads=2):
        super().__init__()
        self.heads, self.width = heads, width
        self.patch = nn.Conv2d(3, width, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, 17, width))
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 32), nn.GELU(), nn.Linear(32, width))
        self.head = nn.Linear(width, 5)

    def attention(self, x):
        n, length, _ = x.shape
        qkv = self.qkv(x).reshape(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.out(y.transpose(1, 2).reshape(n, length, self.width))

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        x = x + self.attention(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        return self.head(x[:, 0]).softmax(-1)


class PreActivation(nn.Module):
    """Batch norm that cannot be folded forwards, group norm, PReLU, global max, reciprocals."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm, self.group = nn.BatchNorm2d(8), nn.GroupNorm(2, 8)
        self.act, self.next = nn.PReLU(8), nn.Conv2d(8, 8, 3, padding=1)
        self.scale = nn.Parameter(torch.full((8, 1, 1), 0.5))
        self.head = nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.ELU(), nn.Dropout(0.2))

    def forward(self, x):
        y = self.conv(x)
        y = y + self.scale * self.next(self.act(self.norm(y)))
        y = self.group(y) / 2 + F.softplus(1 - y)
        return self.head(y.amax((2, 3)))


def randomised(net, seed=0):
    """Give batch norm statistics that matter."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator))
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
    return net.eval()


ALL = {
    "convolutions": Convolutions,
    "movement": Movement,
    "transformer": Transformer,
    "pre_activation": PreActivation,
}
