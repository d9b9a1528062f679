# SPDX-License-Identifier: Apache-2.0
"""Every operator kind as int8 TFLite, against float and between two interpreters."""

from __future__ import annotations

import numpy as np
import pytest
from tflite_cases import CASES
from tflite_programs import float_outputs, quantised, run_litert, run_micro

pytest.importorskip("ethosu.vela.tflite.Model")
pytest.importorskip("ai_edge_litert")

from chipfit.export.tflite import tflite_refusals


@pytest.mark.parametrize("name", list(CASES))
def test_int8_is_within_a_few_steps_of_float(name: str) -> None:
    build, steps = CASES[name]
    program = build()
    file, inputs = quantised(program)
    outputs, step = run_litert(file.data, inputs)
    reference = float_outputs(program, inputs)
    assert outputs.shape == reference.shape
    assert np.abs(outputs - reference).max() <= steps * step
    if not tflite_refusals(program.workload, micro=True):
        assert np.abs(run_micro(file.data, inputs) - outputs).max() <= max(3.5, steps) * step


def test_what_has_no_int8_form_is_named():
    from tflite_programs import Builder

    net = Builder((1, 8, 10, 7))
    net.op("resize", "x0", (1, 8, 20, 14), mode="bicubic", align_corners=False)
    net.op("unary", "t0", (1, 8, 20, 14), function="erf")
    net.op("cumsum", "t1", (1, 8, 20, 14), axis=1)
    reasons = [reason for _, _, reason in tflite_refusals(net.build().workload)]
    assert [word in reason for word, reason in zip(("bicubic", "erf", "cumsum"), reasons,
                                                   strict=True)] == [True] * 3  # fmt: skip
