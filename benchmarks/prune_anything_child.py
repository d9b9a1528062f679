# SPDX-License-Identifier: Apache-2.0
"""One network of timm, narrowed to a share of its MACs in a process that may crash or hang."""

from __future__ import annotations

import copy
import json
import logging
import os
import resource
import sys
import warnings
from functools import cached_property
from typing import Any

import torch
from torch import nn

Answer = dict[str, Any]
#: Ways to narrow a network.
WAYS = ("chipfit", "Torch-Pruning")
#: Factors on all widths that are tried at most, by bisection.
PROBES = 7
#: Largest difference of narrowed and masked network, relative to the largest output, in float64.
SAME = 1e-6


class Subject:
    """The network that the child holds, with fresh parameters that all matter.

    Args:
        name: Of the architecture in timm.
    """

    def __init__(self, name: str) -> None:
        from chipfit.flow.network import load_network
        from chipfit.graph.capture import trace

        loaded = load_network(f"timm:{name}")
        self.name, self.net, self.input = name, loaded.net.eval(), loaded.example()
        drawn = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.net.parameters():
                if parameter.numel() > 1 and bool((parameter == parameter.flatten()[0]).all()):
                    parameter.copy_(torch.rand(parameter.shape, generator=drawn) + 0.5)
        self.image = torch.randn(self.input.shape, generator=drawn)
        self.macs = trace(self.net, self.input).macs

    @cached_property
    def onnx(self) -> str:
        """Why ONNX Runtime does not run the network, ``""`` where it does."""
        return _onnx(self.net, self.input)

    @cached_property
    def int8(self) -> str:
        """Why the network has no int8 TFLite file, ``""`` where it has one."""
        return _int8(self.net, self.input)

    def narrow(self, way: str, share: float, step: int) -> Answer:
        """Narrow to ``share`` of the MACs by one way and check what came out."""
        builder = _Chipfit(self, step) if way == "chipfit" else _TorchPruning(self, step)
        low, high, best, reason = 0.0, 1.0, None, f"stays above {share:.0%} of the MACs"
        for _ in range(PROBES):
            factor = (low + high) / 2
            try:
                net = builder.at(factor)
                macs = _macs(net, self.input)
            except Exception as error:  # a wider one may do
                low, reason = factor, _told(error)
                continue
            if macs <= share * self.macs:
                low, best = factor, (factor, macs, net)
            else:
                high = factor
        if best is None:
            return {"reason": reason, **builder.facts}
        factor, macs, net = best
        answer: Answer = {"factor": round(factor, 4), "share": macs / self.macs, **builder.facts}
        with torch.no_grad():
            mine = net(self.image)
            answer["runs"] = [x.shape for x in _outputs(mine)] == [
                x.shape for x in _outputs(self.net(self.image))
            ]
        answer["difference"] = builder.difference(factor)
        answer |= _exports(self, net)
        answer["ok"] = bool(
            answer["runs"]
            and answer["onnx"] in ("yes", "not before")
            and answer["int8"] != "lost"
            and (answer["difference"] is None or answer["difference"] < SAME)
        )
        return answer


class _Chipfit:
    def __init__(self, subject: Subject, step: int) -> None:
        from chipfit.graph.channels import channel_groups
        from chipfit.rewrite import side_sizes

        self._subject, self._step = subject, step
        self._groups = channel_groups(subject.net, subject.input)
        self._sizes = side_sizes(subject.net)
        free = [group for group in self._groups if not group.frozen]
        self._order = {group.name: _by_magnitude(subject.net, group) for group in free}
        self.facts: Answer = {"groups": len(self._groups), "free": len(free)}

    def edits(self, factor: float) -> Any:
        """Return the edits at which every free group has about ``factor`` of its channels."""
        from chipfit.rewrite import edits_for

        kept = {
            name: sorted(order[: _width(len(order), factor, self._step)])
            for name, order in self._order.items()
        }
        return edits_for(self._groups, kept, self._sizes)

    def at(self, factor: float) -> nn.Module:
        """Return the narrowed network."""
        from chipfit.rewrite import slice_channels

        return slice_channels(self._subject.net, self.edits(factor))

    def difference(self, factor: float) -> float:
        """Return how far narrowed and masked network are apart, in float64 where they run so."""
        from chipfit.rewrite import mask_channels

        edits, image = self.edits(factor), self._subject.image
        narrow, masked = self.at(factor), mask_channels(self._subject.net, edits)
        with torch.no_grad():
            try:
                mine, theirs = narrow.double()(image.double()), masked.double()(image.double())
            except RuntimeError:  # it insists on single precision
                mine, theirs = narrow.float()(image), masked.float()(image)
        return max(
            float((a - b).abs().max() / b.abs().max().clamp_min(1e-12))
            for a, b in zip(_outputs(mine), _outputs(theirs), strict=True)
        )


class _TorchPruning:
    """Magnitude pruning of all layers by one ratio; the layer of the classes is left alone."""

    def __init__(self, subject: Subject, step: int) -> None:
        self._subject, self._step = subject, step
        self.facts: Answer = {}

    def at(self, factor: float) -> nn.Module:
        """Return the pruned network."""
        from benchmarks.pruning_library import torch_pruning

        tp, net = torch_pruning(), copy.deepcopy(self._subject.net)
        for parameter in net.parameters():
            parameter.requires_grad_(True)
        classes = len(self._subject.net(self._subject.input)[0])
        last = [m for m in net.modules() if getattr(m, "out_features", 0) == classes]
        last += [m for m in net.modules() if getattr(m, "out_channels", 0) == classes]
        pruner = tp.pruner.BasePruner(
            net, self._subject.input, importance=tp.importance.MagnitudeImportance(p=2),
            pruning_ratio=1 - factor, round_to=self._step, ignored_layers=last,
        )  # fmt: skip
        pruner.step()
        return net.eval()

    def difference(self, _: float) -> None:
        """Return nothing: it has no masked network to compare with."""


def _width(channels: int, factor: float, step: int) -> int:
    """Return about ``factor`` of the channels, a multiple of ``step`` where there are enough."""
    if channels < 2 * step:
        return max(1, min(channels, round(channels * factor)))
    return min(channels, max(step, round(channels * factor / step) * step))


def _by_magnitude(net: nn.Module, group: Any) -> list[int]:
    """Return the channels of a group by the L2 norm of all that makes them, largest first."""
    total = torch.zeros(group.channels, dtype=torch.float64)
    modules = dict(net.named_modules())
    for member in group.members:
        weight = getattr(modules.get(member.module), "weight", None)
        if member.side != "out" or weight is None or weight.ndim < 2:
            continue
        axis = 1 if isinstance(modules[member.module], nn.ConvTranspose2d) else 0
        rows = weight.detach().double().transpose(0, axis).flatten(1).pow(2).sum(1)
        total += torch.stack([rows[list(own)].sum() for own in member.index])
    return sorted(range(group.channels), key=lambda i: (-float(total[i]), i))


def _macs(net: nn.Module, example: torch.Tensor) -> int:
    from chipfit.graph.capture import trace

    return trace(net, example).macs


def _outputs(result: Any) -> list[torch.Tensor]:
    from chipfit.graph.run import output_tensors

    return output_tensors(result)


def _exports(original: Subject, narrow: nn.Module) -> Answer:
    """Return whether ONNX Runtime runs the narrow network, and whether int8 is kept or lost."""
    example = original.input
    onnx = _onnx(narrow, example)
    kept = "lost" if not original.int8 and _int8(narrow, example) else "yes"
    return {
        "onnx": ("not before" if original.onnx else onnx) if onnx else "yes",
        "int8": "not before" if original.int8 else kept,
    }


def _onnx(net: nn.Module, example: torch.Tensor) -> str:
    """Return why ONNX Runtime does not run the network, ``""`` where it does."""
    from chipfit.graph.capture import capture
    from chipfit.targets.ort_network import onnx_of
    from chipfit.targets.ort_session import open_run

    try:
        open_run(onnx_of(capture(net, example)))()
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:160]
    return ""


def _int8(net: nn.Module, example: torch.Tensor) -> str:
    """Return why the network has no int8 TFLite file, ``""`` where it has one."""
    from chipfit.export.tflite import synthetic_ranges, to_tflite
    from chipfit.graph.capture import capture

    try:
        program = capture(net, example)
        to_tflite(program, synthetic_ranges(program.workload))
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:160]
    return ""


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"[:200]


def serve(memory_gib: float) -> None:
    """Answer the parent's lines, ``[model, way, share, step]``, until it goes."""
    limit = int(memory_gib * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    warnings.filterwarnings("ignore")
    logging.disable(logging.ERROR)
    torch.set_num_threads(1)
    # Libraries print from C, past sys.stdout: the pipe is kept out of their reach.
    replies, subject = os.fdopen(os.dup(1), "w"), None
    os.dup2(2, 1)
    for line in sys.stdin:
        name, way, share, step = json.loads(line)
        try:
            if subject is None or subject.name != name:
                subject = Subject(name)
            answer = subject.narrow(way, share, step)
        except Exception as error:  # what is counted here must not end the count
            answer = {"reason": _told(error)}
        replies.write(json.dumps(answer) + "\n")
        replies.flush()


if __name__ == "__main__":
    serve(float(sys.argv[1]))
