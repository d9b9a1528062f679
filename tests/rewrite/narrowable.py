"""Networks whose channels are coupled in all the ways that networks couple them."""

import torch
import torch.nn.functional as F
from torch import nn

from chipfit.nets import create


def conv(i, o, k=3, **kw):
    return nn.Conv2d(i, o, k, padding=k // 2, **kw)


class Net(nn.Module):
    """Ends in a mean over space and a classifier; ``body`` is what differs."""

    shape = (2, 3, 8, 8)

    def __init__(self, width):
        super().__init__()
        self.stem, self.head = conv(3, width), nn.Linear(width, 5)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x):
        y = self.body(torch.relu(self.norm(self.stem(x))))
        return self.head(y.mean((2, 3)))


class UNet(Net):
    def __init__(self):
        super().__init__(8)
        self.down, self.bottom = conv(8, 12, stride=2), conv(12, 12)
        self.up, self.fuse = nn.ConvTranspose2d(12, 10, 2, 2), conv(18, 8)

    def body(self, x):
        y = torch.relu(self.bottom(torch.relu(self.down(x))))
        return torch.relu(self.fuse(torch.cat([F.silu(self.up(y)), x], 1)))


class DenseNet(Net):
    def __init__(self):
        super().__init__(8)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(8 + 6 * i), nn.ReLU(), conv(8 + 6 * i, 6))
            for i in range(3)
        )
        self.squeeze = conv(26, 8, 1)

    def body(self, x):
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return self.squeeze(x)


class DenseScaled(Net):
    """Its own scale is as long as another axis that a layer inside normalises over."""

    def __init__(self):
        super().__init__(6)
        self.gamma, self.inner = nn.Parameter(torch.rand(6) + 0.5), nn.LayerNorm(6)
        self.a, self.b = conv(6, 6), conv(12, 6, 1)

    def body(self, x):
        y = self.inner(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        y = self.gamma[:, None, None] * self.a(y)
        return torch.relu(self.b(torch.cat([x, y], 1)))


class ResNeXt(Net):
    def __init__(self):
        super().__init__(16)
        self.a, self.b, self.c = conv(16, 24, 1), conv(24, 24, groups=4), conv(24, 16, 1)
        self.bn = nn.BatchNorm2d(24)

    def body(self, x):
        return x + self.c(torch.relu(self.bn(self.b(torch.relu(self.a(x))))))


class ShuffleNet(Net):
    def __init__(self):
        super().__init__(16)
        self.blocks = nn.ModuleList(
            nn.Sequential(conv(8, 8, 1), nn.ReLU(), conv(8, 8, groups=8), conv(8, 8, 1))
            for _ in range(2)
        )

    def body(self, x):
        for block in self.blocks:
            one, two = x.chunk(2, 1)
            y = torch.cat([one, torch.relu(block(two))], 1)
            b, c, h, w = y.shape
            x = y.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)
        return x


class GroupShuffle(Net):
    def __init__(self):
        super().__init__(12)
        self.groups = 3
        self.a, self.b = conv(12, 36, 1, groups=3), conv(36, 12, 1, groups=3)
        self.shuffle = nn.ChannelShuffle(3)

    def body(self, x):
        return x + self.b(self.shuffle(torch.relu(self.a(x))))


class Attention(nn.Module):
    """Written by hand, with numbers of its own."""

    def __init__(self, dim, heads, style):
        super().__init__()
        self.heads, self.head_dim, self.style = heads, dim // heads, style
        self.scale = self.head_dim**-0.5
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x):
        b, n, _ = x.shape
        if self.style == "packed":
            y = self.qkv(x).reshape(b, n, 3, self.heads, self.head_dim).permute(2, 0, 3, 1, 4)
            q, k, v = y.unbind(0)
            y = ((q * self.scale) @ k.transpose(-2, -1)).softmax(-1) @ v
            return self.proj(y.transpose(1, 2).reshape(b, n, self.heads * self.head_dim))
        q, k, v = (
            y.reshape(b, n, self.heads, -1) for y in self.qkv(x).chunk(3, dim=-1)
        )  # fmt: skip
        if self.style == "einsum":
            weights = torch.einsum("bnhd,bmhd->bhnm", q, k) * self.scale
            y = torch.einsum("bhnm,bmhd->bnhd", weights.softmax(-1), v)
        else:
            q, k, v = (y.transpose(1, 2) for y in (q, k, v))
            y = F.scaled_dot_product_attention(q, k, v, scale=self.scale).transpose(1, 2)
        return self.proj(y.flatten(2))


class ClassicAttention(nn.Module):
    """Takes the width of its heads from what it reads, so that they go with the network's."""

    def __init__(self, dim, heads, fused):
        super().__init__()
        self.num_heads, self.head_dim, self.fused_attn = heads, dim // heads, fused
        self.scale = self.head_dim**-0.5
        self.q, self.kv, self.proj = (
            nn.Linear(dim, dim),
            nn.Linear(dim, 2 * dim),
            nn.Linear(dim, dim),
        )

    def forward(self, x):
        b, n, c = x.shape
        q = self.q(x).reshape(b, n, self.num_heads, c // self.num_heads).transpose(1, 2)
        kv = self.kv(x).reshape(b, n, 2, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        if self.fused_attn:
            y = F.scaled_dot_product_attention(q, kv[0], kv[1])
        else:
            y = (q @ kv[0].transpose(-2, -1) * self.scale).softmax(-1) @ kv[1]
        return self.proj(y.transpose(1, 2).reshape(b, n, c))


class SeparateAttention(nn.Module):
    """Queries and keys of another width than values."""

    def __init__(self, dim, heads):
        super().__init__()
        self.num_heads, self.scale = heads, 0.3
        self.q, self.k, self.v = nn.Linear(dim, 8), nn.Linear(dim, 8), nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x):
        q, k, v = (
            layer(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        y = (q @ k.mT * self.scale).softmax(-1) @ v
        return self.out(y.transpose(1, 2).flatten(2))


class CascadedHeads(Net):
    """Every head has a projection of its own and a quarter of the channels, and reads the last.

    One number says how wide all of them are, as in EfficientViT's cascaded group attention.
    """

    def __init__(self):
        super().__init__(24)
        self.key_dim, self.value_dim = 4, 6
        self.projections = nn.ModuleList(conv(6, 2 * 4 + 6, 1) for _ in range(4))
        self.proj = conv(24, 24, 1)

    def body(self, x):
        part, found = 0.0, []
        for own, projection in zip(x.chunk(4, 1), self.projections, strict=True):
            y = projection(part + own)
            q, k, v = y.split([self.key_dim, self.key_dim, self.value_dim], 1)
            weights = (q.flatten(2).mT @ k.flatten(2)).softmax(-1)
            part = (v.flatten(2) @ weights.mT).reshape(v.shape)
            found.append(part)
        return x + self.proj(torch.cat(found, 1))


class Partial(Net):
    """One part of the channels is worked on, the other is given as the whole less that."""

    def __init__(self):
        super().__init__(12)
        self.dim, self.part = 12, 5
        self.work, self.proj = conv(5, 5), conv(12, 12, 1)

    def body(self, x):
        one, two = x.split([self.part, self.dim - self.part], 1)
        one = one + torch.relu(self.work(one))
        return x + self.proj(torch.cat([one, two], 1))


class ViT(nn.Module):
    shape = (2, 3, 8, 8)

    def __init__(self, style):
        super().__init__()
        dim = 16
        self.patch, self.cls = nn.Conv2d(3, dim, 4, 4), nn.Parameter(torch.randn(1, 1, dim))
        self.pos = nn.Parameter(torch.randn(1, 5, dim))
        separate = style == "separate"
        if style in ("classic", "classic_fused"):
            self.attn = ClassicAttention(dim, 2, style == "classic_fused")
        else:
            self.attn = SeparateAttention(dim, 4) if separate else Attention(dim, 4, style)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))
        self.gain = nn.Parameter(torch.rand(dim))
        self.mlp = nn.Sequential(nn.Linear(dim, 24), nn.GELU(), nn.Linear(24, dim))
        self.head = nn.Linear(dim, 5)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1) + self.pos
        x = x + self.gain * self.attn(self.norms[0](x))
        x = x + self.mlp(self.norms[1](x))
        return self.head(self.norms[2](x)[:, 0])


class SqueezeExcite(Net):
    def __init__(self):
        super().__init__(12)
        self.a, self.b = nn.Linear(12, 6), nn.Linear(6, 12)

    def body(self, x):
        gate = torch.sigmoid(self.b(torch.relu(self.a(x.mean((2, 3))))))
        return x * gate[:, :, None, None]


class Ghost(Net):
    def __init__(self):
        super().__init__(12)
        self.a, self.cheap = conv(12, 9, 1), conv(9, 9, groups=9)
        self.out = conv(18, 12, 1)

    def body(self, x):
        y = torch.relu(self.a(x))
        return x + self.out(torch.cat([y, torch.relu(self.cheap(y))], 1)[:, :18])


class Inception(Net):
    """Cuts channels into unequal parts by numbers that it has written down."""

    def __init__(self):
        super().__init__(16)
        self.splits = (10, 3, 3)
        self.wide, self.tall = nn.Conv2d(3, 3, (1, 3), padding=(0, 1)), conv(3, 3, groups=3)
        self.mix = conv(16, 16, 1)

    def body(self, x):
        whole, a, b = torch.split(x, self.splits, dim=1)
        return self.mix(torch.cat([whole, self.wide(a), self.tall(b)], 1))


class Res2Net(Net):
    def __init__(self):
        super().__init__(12)
        self.width = 4
        self.convs = nn.ModuleList(conv(4, 4) for _ in range(2))
        self.mix = conv(12, 12, 1)

    def body(self, x):
        one, two, three = torch.split(x, self.width, 1)
        two = torch.relu(self.convs[0](two))
        three = torch.relu(self.convs[1](three + two))
        return self.mix(torch.cat([one, two, three], 1))


class Gated(Net):
    def __init__(self):
        super().__init__(8)
        self.a, self.b, self.c = conv(8, 20, 1), conv(10, 20, 1), conv(10, 8, 1)

    def body(self, x):
        one, two = self.a(x).chunk(2, 1)
        return x + self.c(F.glu(self.b(one * torch.sigmoid(two)), 1))


class GroupNorms(Net):
    def __init__(self):
        super().__init__(12)
        self.a, self.b = conv(12, 20), conv(20, 12)
        self.norms = nn.ModuleList([nn.GroupNorm(4, 20), nn.GroupNorm(1, 12)])

    def body(self, x):
        return self.norms[1](self.b(torch.relu(self.norms[0](self.a(x)))))


class ConvNeXt(Net):
    def __init__(self):
        super().__init__(10)
        self.mix, self.ln = conv(10, 10, groups=10), nn.LayerNorm(10)
        self.a, self.b = nn.Linear(10, 24), nn.Linear(24, 10)
        self.gamma = nn.Parameter(torch.rand(10, 1, 1))

    def body(self, x):
        y = self.b(F.gelu(self.a(self.ln(self.mix(x).permute(0, 2, 3, 1)))))
        return x + self.gamma * y.permute(0, 3, 1, 2)


class Multiplier(Net):
    """A depthwise convolution with two outputs of every input, and a unshuffled image."""

    def __init__(self):
        super().__init__(8)
        self.many, self.few = conv(8, 16, groups=8), conv(64, 8, 1)

    def body(self, x):
        return self.few(F.pixel_unshuffle(torch.relu(self.many(x)), 2))


class RMSNorm(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(dim))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


class Normed(Net):
    def __init__(self):
        super().__init__(10)
        self.rms, self.a, self.b = RMSNorm(10), nn.Linear(10, 14), nn.Linear(14, 10)

    def body(self, x):
        return x + self.b(torch.tanh(self.a(self.rms(x.mT.mT.permute(0, 2, 3, 1))))).permute(
            0, 3, 1, 2
        )


class Unfolded(Net):
    """Windows by ``unfold``, and a flatten behind which every channel owns many inputs."""

    def __init__(self):
        super().__init__(6)
        self.mix, self.head = nn.Linear(6 * 9, 7), nn.Linear(7 * 64, 5)

    def forward(self, x):
        y = F.unfold(torch.relu(self.norm(self.stem(x))), 3, padding=1).transpose(1, 2)
        return self.head(torch.relu(self.mix(y)).flatten(1))


class Upscaler(nn.Module):
    shape = (2, 3, 8, 8)

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = conv(3, 8), conv(8, 8), conv(8, 48)
        self.d = conv(12, 12)

    def forward(self, x):
        y = torch.relu(self.a(x))
        return F.pixel_shuffle(self.d(F.pixel_shuffle(self.c(y + self.b(y)), 2)), 2)


def of_zoo(name, **options):
    def build():
        net = create(name, **options)
        net.shape = net.input_shape
        return net

    return build


NETWORKS = {
    "unet": UNet, "densenet": DenseNet, "resnext": ResNeXt, "shufflenet": ShuffleNet,
    "group_shuffle": GroupShuffle, "squeeze_excite": SqueezeExcite, "ghost": Ghost,
    "inception": Inception, "res2net": Res2Net, "gated": Gated, "group_norms": GroupNorms,
    "convnext_like": ConvNeXt, "multiplier": Multiplier, "rms_norm": Normed,
    "unfolded": Unfolded, "upscaler": Upscaler, "cascaded_heads": CascadedHeads,
    "partial": Partial, "dense_scaled": DenseScaled,
    **{f"vit_{style}": lambda style=style: ViT(style)
       for style in ("packed", "einsum", "fused", "separate")},
    "tiny_mobilenet_v2": of_zoo("tiny_mobilenet_v2", input_shape=(1, 1, 8, 8)),
    "resnet18": of_zoo("resnet18", input_shape=(1, 3, 32, 32), num_classes=10),
    "ghostnet": of_zoo("ghostnet", input_shape=(1, 3, 32, 32), num_classes=10),
    "sesr_m5": of_zoo("sesr_m5", input_shape=(1, 1, 8, 8)),
    "convnext_tiny": of_zoo("convnext_tiny", input_shape=(1, 3, 32, 32), num_classes=10),
}  # fmt: skip
