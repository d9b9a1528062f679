# SPDX-License-Identifier: Apache-2.0
"""One network of timm, traced and costed in a process that may crash, hang or run out of memory."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import resource
import sys
import time
import warnings
from typing import Any

Answer = dict[str, Any]


class Subject:
    """The network that the child holds; built again only when another is asked for."""

    def __init__(self, name: str) -> None:
        from chipfit.flow.network import load_network

        loaded = load_network(f"timm:{name}")
        self.name, self.net = name, loaded.net.eval().requires_grad_(False)
        self.input = loaded.example()
        self._program: Any = None

    @property
    def program(self) -> Any:
        """The traced network with its weights."""
        from chipfit.graph.capture import capture

        if self._program is None:
            self._program = capture(self.net, self.input)
        return self._program

    def trace(self) -> Answer:
        """Trace, and compare operators, MACs, parameters and results with others' counts."""
        import torch

        from chipfit.graph.execute import WorkloadModule

        start = time.process_time()
        program = self.program
        cpu_s, load = time.process_time() - start, program.workload
        unknown = {n.op["aten"].partition(": ")[0] for n in load.nodes
                   if n.op.kind == "unsupported"}  # fmt: skip
        sizes = {name: p.numel() for name, p in self.net.named_parameters()}
        answer: Answer = {
            "input": list(self.input.shape), "nodes": len(load), "cpu_s": round(cpu_s, 3),
            "unsupported": sorted(unknown), "macs": load.macs, "params": sum(sizes.values()),
            "params_reached": sum(sizes[name] for name in program.reached),
            "unused": [name for name in sizes if name not in program.reached][:4],
            "params_deployed": load.parameter_count,
            "macs_counted": self._counted(), "coupling": self._coupling(),
        }  # fmt: skip
        if not unknown:
            with torch.no_grad():
                other = 0.5 - self.input.flip(-1)  # what depends on the input must change with it
                mine, theirs = WorkloadModule(program)(other), self.net(other)
            answer["parity"] = _difference(mine, theirs)
        return answer

    def _counted(self) -> int | None:
        """Return PyTorch's own count of one image's MACs.

        Work on parameters alone (tables of positions made by a small network) is done once and
        stored; it does not grow with the batch, so the difference of two batches leaves it out.
        """
        whole = self._flops(1)
        if whole is None or whole == self.program.workload.macs:
            return whole
        double = self._flops(2)
        return whole if double is None else double - whole

    def _flops(self, batch: int) -> int | None:
        import torch
        from torch.nn.attention import SDPBackend, sdpa_kernel
        from torch.utils.flop_counter import FlopCounterMode

        images = self.input.repeat(batch, 1, 1, 1)
        try:
            counter = FlopCounterMode(display=False)
            with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
                self.net(images)
        except Exception:  # the counter itself fails on a few
            return None
        return int(counter.get_total_flops()) // 2

    def _coupling(self) -> str:
        from chipfit.graph.channels import channel_groups

        groups = channel_groups(self.net, self.input)
        uncoupled = {group.uncoupled for group in groups if group.uncoupled}
        return uncoupled.pop() if uncoupled else "found"

    def cost(self, target: str) -> Answer:
        """Cost the network on a target; ONNX Runtime only runs it once."""
        from chipfit.targets import create

        if target == "onnxruntime-cpu":
            from chipfit.targets.ort_network import onnx_of
            from chipfit.targets.ort_session import open_run

            create(target).check(self.program.workload)
            open_run(onnx_of(self.program))()
            return {"ok": True}
        values = create(target).cost(self.program).total.values
        bad = [key for key, value in values.items() if not math.isfinite(value)]
        return {"reason": f"{bad[0]} is not finite"} if bad else {"ok": True}


def _difference(mine: Any, theirs: Any) -> float:
    """Return the largest difference of results, relative to the largest result."""
    from chipfit.graph.run import output_tensors

    pairs = zip(output_tensors(mine), output_tensors(theirs), strict=True)
    return max(float((a - b).abs().max() / b.abs().max().clamp_min(1e-9)) for a, b in pairs)


def reasons_of(message: str) -> list[str]:
    """Return the reasons in a refusal, without the names of layers, each once.

    >>> reasons_of("x cannot run 2 operator(s): a.b: div (int8, no); c: div (int8, no)")
    ['div (int8, no)']
    """
    _, found, tail = message.partition("operator(s): ")
    if not found:
        return [re.sub(r"^[\w.#/]+: ", "", message).splitlines()[0][:160]]
    tail = re.sub(r" and \d+ more.*$", "", tail)
    parts = [part.partition(": ")[2] or part for part in tail.split("; ")]
    return sorted({re.sub(r"[\d.e+-]*\d[\d.e+-]*", "N", part)[:160] for part in parts})


def answer_to(step: str, subject: Subject) -> Answer:
    """Do one step; every failure becomes a reason."""
    from chipfit.errors import ChipfitError

    try:
        return subject.trace() if step == "trace" else subject.cost(step)
    except ChipfitError as error:
        return {"reason": error.message[:300], "reasons": reasons_of(error.message)}
    except MemoryError:
        return {"reason": "takes more memory than the limit"}
    except Exception as error:  # what is counted here must not end the count
        return {"reason": f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"}


def serve(memory_gib: float) -> None:
    """Answer the parent's lines until it goes."""
    limit = int(memory_gib * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    warnings.filterwarnings("ignore")
    logging.disable(logging.ERROR)
    import torch

    torch.set_num_threads(1)
    # Compilers and runtimes print from C, past sys.stdout: the pipe is kept out of their reach.
    replies, subject = os.fdopen(os.dup(1), "w"), None
    os.dup2(2, 1)
    for line in sys.stdin:
        name, step = json.loads(line)
        try:
            if subject is None or subject.name != name:
                subject = Subject(name)
            answer = answer_to(step, subject)
        except Exception as error:  # the network cannot even be built
            subject, answer = None, {"reason": f"{type(error).__name__}: {error}"[:300]}
        replies.write(json.dumps(answer) + "\n")
        replies.flush()


if __name__ == "__main__":
    serve(float(sys.argv[1]))
