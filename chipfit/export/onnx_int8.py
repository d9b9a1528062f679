# SPDX-License-Identifier: Apache-2.0
"""Post-training quantisation of an ONNX model to int8, in QDQ form, by ONNX Runtime's quantiser.

The scheme decides more than accuracy. On x86 without VNNI, byte products of unsigned activations
and signed weights are added in pairs into 16 bits (``vpmaddubsw``), which saturates: weights are
then kept within 7 bits ("reduced range"). Two signed factors, or two unsigned ones, do not
saturate, but their kernels first widen both and are hardly quicker than float.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from chipfit.errors import BadInput, MissingBackend, UnknownName, UnsupportedOp
from chipfit.export.onnx_gelu import fuse_gelu
from chipfit.machine import has_vnni

#: Types of activations, then of weights.
VARIANTS = ("u8s8", "s8s8", "u8u8")
Feed = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Int8Scheme:
    """How numbers become bytes.

    Args:
        variant: One of :data:`VARIANTS`: activations, then weights, unsigned or signed. Weights
            have a scale per output channel, but with ``u8u8`` one per tensor, as its kernels need.
        reduce_range: Weights of 7 bits, so that sums of 16 bits cannot saturate.

    Raises:
        UnknownName: There is no such variant.
    """

    variant: str = "u8s8"
    reduce_range: bool = False

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise UnknownName("int8 variant", self.variant, VARIANTS)

    @property
    def label(self) -> str:
        """The scheme in one word, for fingerprints and tables."""
        return self.variant + ("-7bit" if self.reduce_range else "")

    @property
    def saturates(self) -> bool:
        """Whether sums can saturate on this machine's processor."""
        return self.variant == "u8s8" and not self.reduce_range and not has_vnni()


def scheme_for_this_cpu(variant: str = "", reduce_range: bool | None = None) -> Int8Scheme:
    """Return the scheme asked for; what is left open is chosen by what the processor has.

    With VNNI that is ``u8s8`` with all 8 bits, without it ``u8s8`` with weights of 7 bits.
    """
    variant = variant or "u8s8"
    if reduce_range is None:
        reduce_range = variant == "u8s8" and not has_vnni()
    return Int8Scheme(variant, reduce_range)


def quantise(data: bytes, feeds: Iterable[Feed], scheme: Int8Scheme) -> bytes:
    """Return the float model ``data`` as an int8 model in QDQ form.

    Activations get the range that they take on ``feeds``. Where only cost matters, one random
    input does (:func:`random_feed`).

    Args:
        data: Content of a float32 ONNX file.
        feeds: Inputs by name, ``(N, C, H, W)`` each; at least one.
        scheme: Types and ranges.

    Raises:
        MissingBackend: onnxruntime or onnx is not installed.
        BadInput: There is no feed, or an activation is not finite.
        UnsupportedOp: The runtime or its quantiser rejects the model.
    """
    quantization = _library()
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    signed, unsigned = quantization.QuantType.QInt8, quantization.QuantType.QUInt8
    types = {"u": unsigned, "s": signed}
    with _quiet(), tempfile.TemporaryDirectory(prefix="chipfit-int8-") as folder:
        model = _simplified(data, Path(folder))
        ranges = _ranges(model, feeds)
        kinds = sorted(quantisable_kinds())
        try:
            quantiser = QDQQuantizer(
                model, scheme.variant != "u8u8", scheme.reduce_range,
                types[scheme.variant[2]], types[scheme.variant[0]], ranges, [], [], kinds, {},
            )  # fmt: skip
            quantiser.quantize_model()
        except (ValueError, RuntimeError, KeyError, AttributeError) as error:
            raise UnsupportedOp(f"ONNX Runtime's quantiser fails: {error}") from error
        return bytes(quantiser.model.model.SerializeToString())


def random_feed(data: bytes, seed: int = 0) -> dict[str, np.ndarray]:
    """Return standard-normal inputs of batch 1 for the model ``data``."""
    import onnx

    rng = np.random.default_rng(seed)
    graph = onnx.load_from_string(data).graph
    stored = {tensor.name for tensor in graph.initializer}
    feed = {}
    for value in graph.input:
        if value.name not in stored:
            shape = [d.dim_value or 1 for d in value.type.tensor_type.shape.dim]
            feed[value.name] = rng.standard_normal(shape, dtype=np.float32)
    return feed


def is_quantised(data: bytes) -> bool:
    """Whether the ONNX model ``data`` holds quantised operators.

    Raises:
        BadInput: This is no ONNX model.
    """
    import onnx

    try:
        nodes = onnx.load_from_string(data).graph.node
        return any("Quantize" in n.op_type or n.op_type.startswith("QLinear") for n in nodes)
    except Exception as error:  # protobuf's exception classes differ between versions
        raise BadInput("this is not an ONNX model") from error


def _library() -> Any:
    try:
        import onnx  # noqa: F401
        from onnxruntime import quantization
    except ImportError as error:
        raise MissingBackend(
            "quantising ONNX models needs onnx and onnxruntime", "pip install 'chipfit[onnx]'"
        ) from error
    return quantization


def _session(data: bytes, level: str, path: Path | None = None) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    if path is not None:
        options.optimized_model_filepath = str(path)
    try:
        return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's exception classes share no public base
        first = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise UnsupportedOp(f"ONNX Runtime rejects the model: {first}") from error


def _simplified(data: bytes, folder: Path) -> Any:
    """Return the model with constants folded, and with the type of every tensor."""
    import onnx

    path = folder / "simplified.onnx"
    _session(data, "ORT_ENABLE_BASIC", path)
    model = onnx.load(path)
    fuse_gelu(model)
    return onnx.shape_inference.infer_shapes(model)


def _ranges(model: Any, feeds: Iterable[Feed]) -> Any:
    """Run the model on ``feeds`` and return the range of every float tensor."""
    import onnx
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData

    known = {o.name for o in model.graph.output}
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    wide.graph.output.extend(
        onnx.helper.make_tensor_value_info(value.name, onnx.TensorProto.FLOAT, None)
        for value in model.graph.value_info
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT and value.name not in known
    )
    session = _session(wide.SerializeToString(), "ORT_DISABLE_ALL")
    names = [output.name for output in session.get_outputs()]
    low: dict[str, float] = {}
    high: dict[str, float] = {}
    for feed in feeds:
        values = dict(zip(names, session.run(None, dict(feed)), strict=True)) | dict(feed)
        for name, value in values.items():
            low[name] = min(low.get(name, np.inf), float(value.min()))
            high[name] = max(high.get(name, -np.inf), float(value.max()))
    if not low:
        raise BadInput("calibration needs at least one input")
    bad = [name for name in low if not np.isfinite([low[name], high[name]]).all()]
    if bad:
        raise BadInput(f"the tensor {bad[0]} takes values that are not finite", "check the weights")
    found = {
        name: TensorData(lowest=np.float32(low[name]), highest=np.float32(high[name]))
        for name in low
    }
    return TensorsData(CalibrationMethod.MinMax, found)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantiser's advice, which it logs at the root, from the terminal."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


def quantisable_kinds() -> frozenset[str]:
    """Return the ONNX operators that the quantiser gives an int8 form."""
    _library()
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    return frozenset({*QDQRegistry, *QLinearOpsRegistry})
