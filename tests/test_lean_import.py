import json
import subprocess
import sys

import pytest

HEAVY = ["onnx", "onnxruntime", "ethosu", "ai_edge_litert", "tflite_micro", "flatbuffers",
         "matplotlib", "torch_pruning", "scipy", "PIL", "timm", "torchvision",
         "tensorboard"]  # fmt: skip


def _imported(statement):
    code = f"import sys, json\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(run.stdout.splitlines()[-1]))


def test_importing_chipfit_imports_not_even_torch():
    assert not _imported("import chipfit") & {"torch", "numpy", *HEAVY}


@pytest.mark.parametrize(
    "statement",
    [
        "import chipfit as cf; cf.nets.create('tiny_mobilenet_v2')",
        "import chipfit.cli.main",
        "from chipfit.flow.listing import LISTINGS; [rows() for rows in LISTINGS.values()]",
    ],
)
def test_no_device_runtime_is_imported_before_it_is_needed(statement):
    assert not _imported(statement) & set(HEAVY)


def test_cuda_is_not_touched():
    code = (
        "import torch\n"
        "def fail(*a, **k): raise SystemExit('CUDA was touched')\n"
        "torch.cuda._lazy_init = fail\n"
        "import chipfit as cf, chipfit.flow.fit\n"
        "cf.nets.create('tiny_mobilenet_v2'); print('ok')"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout.strip() == "ok", run.stderr
