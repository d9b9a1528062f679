# SPDX-License-Identifier: Apache-2.0
import pytest

from chipfit.errors import BadInput
from chipfit.report.curves import PANELS, curves_picture, write_curves

pytest.importorskip("matplotlib")


def curve(name="a", present=16):
    return {
        "layer": name, "present": present, "channels": [8, 9, 16, 17, 32],
        "latency_ms": [1.0, 1.5, 1.6, 2.5, 2.0], "spread_ms": [0.1] * 5,
        "cliffs": [{"channels": 8, "to": 9, "factor": 1.5},
                   {"channels": 17, "to": 32, "factor": 0.8}],
    }  # fmt: skip


def test_each_format_is_what_its_name_says(tmp_path):
    for name, start in (("c.png", b"\x89PNG"), ("c.svg", b"<?xml"), ("c.html", b"<!doctype html>")):
        write_curves([curve()], "net on device", tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(start)
    assert b"<svg" in (tmp_path / "c.html").read_bytes()
    with pytest.raises(BadInput, match="pdf"):
        write_curves([curve()], "net", tmp_path / "c.pdf")
    with pytest.raises(BadInput, match="no curve"):
        curves_picture([], "net")


def test_a_panel_names_its_layer_its_cliffs_and_units():
    picture = curves_picture([curve("features.0"), curve("x$y_z")], "net $1", "svg").decode()
    for text in ("features.0 (16)", "x$y_z (16)", "8→9 +50 %", "17→32 -20 %", "latency (ms)",
                 "channels", "net $1"):  # fmt: skip
        assert f"<!-- {text}" in picture
    assert picture.count("<!-- channels") == 2


def test_pictures_are_reproducible_and_stop_at_the_panels():
    curves = [curve(f"layer{i}") for i in range(PANELS + 1)]
    picture = curves_picture(curves, "net", "svg")
    assert picture == curves_picture(curves, "net", "svg")
    assert f"layer{PANELS - 1} (16)".encode() in picture
    assert f"layer{PANELS} (16)".encode() not in picture
    assert f"{PANELS} of {PANELS + 1} layers".encode() in picture
