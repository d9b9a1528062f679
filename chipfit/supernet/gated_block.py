# SPDX-License-Identifier: Apache-2.0
"""``GatedBlock``: a block as it is and, beside it, the same block without inner activations.

Bhardwaj et al., "Restructurable Activation Networks", 2022, arXiv 2208.08562. The paper shows the
two ends (its block of ``BN -> act -> dense convolution -> BN``, and the inverted residual) and
leaves open how its search moves between them. Our reconstruction: as a gate closes, the activations
inside go and the one before the block comes in; the output is ``g kept(x) + (1 - g) linear(x)``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from chipfit.blocks.conv_bn_act import activation_module
from chipfit.errors import BadInput
from chipfit.graph.blocks import ActivatedBlock, Padding
from chipfit.supernet.folding import apart, folded, take_norm
from chipfit.supernet.linear_chain import chain_bias, compose_chain, cropped

#: Shift of the batch norm before the activation: a standardised value of -1 is where it begins to
#: act, so that most of the block's input passes and the chain's weights are worth inheriting.
OPENING = 1.0


class LinearPath(nn.Module):
    """Batch norm, activation, a linear chain executed as one dense convolution, batch norm.

    The factors of the chain stay apart while they are trained (SESR, Bhardwaj et al., MLSys 2022,
    arXiv 2103.09404, section 3.2: training in collapsed form), so this equals at every moment the
    :class:`~chipfit.blocks.pre_activation_conv.PreActivationConv` that :meth:`collapsed_state`
    fills, borders included.

    Args:
        block: The block that it stands beside.
        net: The network that holds the block, trained; weights are inherited from it.
        act: Activation in front.
        expanded: Keep the factors apart; otherwise their product is trained.
        kernel: Size of the dense convolution; smaller than the chain's keeps its middle.
        momentum: Of the batch norms.
    """

    def __init__(
        self,
        block: ActivatedBlock,
        net: nn.Module,
        act: str,
        expanded: bool = True,
        kernel: int | None = None,
        momentum: float = 0.1,
    ) -> None:
        super().__init__()
        self.stride, self.residual = block.stride, block.residual
        self.chain_padding = block.padding
        self.kernel = kernel or block.kernel
        self.before, self.padding = _crop(block.padding, block.kernel, self.kernel)
        self.strides = [site.stride for site in block.convs]
        self.depthwise = [site.depthwise for site in block.convs]
        pairs = [folded(net, site) for site in block.convs]
        last, norm = apart(net, block.convs[-1])
        if block.shortcut is None:
            pairs[-1] = last
        else:
            norm = None
        weights = [w for w, _ in pairs]
        bias = chain_bias(weights, [b for _, b in pairs], self.depthwise)
        side: Tensor | None = None
        if block.shortcut is not None:
            side, own = folded(net, block.shortcut)
            bias = bias + own
        self.norm = nn.BatchNorm2d(block.in_channels, momentum=momentum)
        nn.init.constant_(self.norm.bias, OPENING)
        self.act = activation_module(act)
        if not expanded:
            whole = _with_side(compose_chain(weights, self.strides, self.depthwise), side, self)
            weights = [cropped(whole, self.before, self.kernel)]
            self.strides, self.depthwise, side, self.before = [self.stride], [False], None, (0, 0)
        self.factors = nn.ParameterList(nn.Parameter(w.clone()) for w in weights)
        self.side = nn.Parameter(side.clone()) if side is not None else None
        self.after = nn.BatchNorm2d(block.out_channels, momentum=momentum)
        take_norm(self.after.to(bias.dtype), norm, bias)
        self.to(bias.dtype)

    @torch.no_grad()
    def fit_input(self, mean: Tensor, variance: Tensor) -> None:
        """Take the statistics ``(C,)`` of the block's input, and undo their scale in the chain."""
        mean, variance = mean.to(self.factors[0].dtype), variance.to(self.factors[0].dtype)
        self.norm.running_mean.copy_(mean)  # type: ignore[union-attr]
        self.norm.running_var.copy_(variance)  # type: ignore[union-attr]
        scale = (variance + self.norm.eps).sqrt()
        # What the chain now reads is (x - mean) / deviation + OPENING wherever it is not clipped.
        shape = (-1, 1, 1, 1) if self.depthwise[0] else (1, -1, 1, 1)
        before = self.weight().sum((2, 3)) @ mean
        self.factors[0].mul_(scale.reshape(shape))
        if self.side is not None:
            self.side.mul_(scale.reshape(1, -1, 1, 1))
        offset = self.weight().sum((2, 3)).sum(1) * OPENING
        self.after.running_mean.add_(offset - before)  # type: ignore[union-attr]

    def weight(self) -> Tensor:
        """Return the dense weight ``(out, in, k, k)``."""
        chain = compose_chain(list(self.factors), self.strides, self.depthwise)
        return cropped(_with_side(chain, self.side, self), self.before, self.kernel)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C_in, H, W)`` to ``(N, C_out, H / stride, W / stride)``."""
        h = self.act(self.norm(x))
        top, bottom, left, right = self.padding
        if top == bottom and left == right:
            y = functional.conv2d(h, self.weight(), stride=self.stride, padding=(top, left))
        else:
            h = functional.pad(h, (left, right, top, bottom))
            y = functional.conv2d(h, self.weight(), stride=self.stride)
        y = self.after(y)
        return x + y if self.residual else y

    @torch.no_grad()
    def collapsed_state(self, kernel: int | None = None) -> dict[str, Tensor]:
        """Return the state of the ``PreActivationConv`` that this is.

        Args:
            kernel: Its kernel size where it is smaller than the chain's: the middle is kept.

        Raises:
            BadInput: The kernel is larger, or does not fit the padding.
        """
        weight = self.weight().detach()
        if kernel is not None and kernel != weight.shape[-1]:
            before, _ = _crop(self.padding, weight.shape[-1], kernel)
            weight = cropped(weight, before, kernel)
        state = {f"norm.{name}": value for name, value in self.norm.state_dict().items()}
        state["conv.0.0.weight"] = weight.contiguous()
        return state | {f"conv.0.1.{n}": v for n, v in self.after.state_dict().items()}


def _crop(padding: Padding, size: int, kernel: int) -> tuple[tuple[int, int], Padding]:
    """Return where in a kernel the smaller one begins (top, left), and what that one pads.

    The sampling grid stays; padding that is left is split as SAME padding is.
    """
    total = size - kernel
    rows, columns = (max(0, sum(padding[i : i + 2]) - total) for i in (0, 2))
    less: Padding = (rows // 2, rows - rows // 2, columns // 2, columns - columns // 2)
    top, left = padding[0] - less[0], padding[2] - less[2]
    if total < 0 or not (0 <= top <= total and 0 <= left <= total):
        raise BadInput(f"a kernel of {size} cannot be cropped to {kernel} with padding {padding}")
    return (top, left), less


def _with_side(chain: Tensor, side: Tensor | None, path: LinearPath) -> Tensor:
    if side is None:
        return chain
    size, (top, _, left, _) = chain.shape[-1], path.chain_padding
    return chain + functional.pad(side, (left, size - 1 - left, top, size - 1 - top))


class GatedBlock(nn.Module):
    """A block, its linear path, and the gate between them.

    Args:
        kept: The block as it is.
        linear: The path without inner activations.
    """

    def __init__(self, kept: nn.Module, linear: LinearPath) -> None:
        super().__init__()
        self.kept, self.linear = kept, linear
        #: 1 for the block, 0 for the linear path; a tensor mixes them and gets a gradient.
        self.gate: float | Tensor = 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C_in, H, W)`` to ``(N, C_out, H / stride, W / stride)``."""
        if isinstance(self.gate, Tensor):
            return self.gate * self.kept(x) + (1 - self.gate) * self.linear(x)
        if self.gate == 1.0:
            return self.kept(x)
        if self.gate == 0.0:
            return self.linear(x)
        return self.gate * self.kept(x) + (1.0 - self.gate) * self.linear(x)


def input_statistics(
    net: nn.Module, names: list[str], batches: list[Tensor]
) -> Mapping[str, tuple[Tensor, Tensor]]:
    """Return mean and variance ``(C,)`` of what modules read, in evaluation mode.

    Args:
        net: The network; its mode is restored.
        names: Dotted names of modules that read one image.
        batches: Inputs of the network, at least one.
    """
    sums: dict[str, list[Tensor]] = {name: [] for name in names}

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def take(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].double()
            sums[name].append(torch.stack([x.mean((0, 2, 3)), (x * x).mean((0, 2, 3))]))

        return take

    hooks = [net.get_submodule(n).register_forward_pre_hook(hook(n)) for n in names]
    modes = {module: module.training for module in net.modules()}
    net.eval()
    try:
        with torch.no_grad():
            for batch in batches:
                net(batch)
    finally:
        for each in hooks:
            each.remove()
        for module, mode in modes.items():
            module.training = mode
    means = {name: torch.stack(found).mean(0) for name, found in sums.items()}
    return {n: (m[0].float(), (m[1] - m[0] ** 2).clamp(min=0).float()) for n, m in means.items()}
