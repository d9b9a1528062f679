# SPDX-License-Identifier: Apache-2.0
"""RAN-e's own table: inferences a second relative to EfficientNet-Lite0, on every Ethos-U.

    python -m benchmarks.ran_e_table

Prints ResNet-18, RepVGG-A0, RAN-e-GT and RAN-e-C on all accelerators and memory layouts that Vela
knows and that make sense, beside the figures of the paper (Bhardwaj et al., arXiv 2208.08562); then
what they would be with ReLU6 in the place of hardswish, where the cycles go by kind of layer, and
which layers wait for memory.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence

from benchmarks.output import Report, command, parser
from benchmarks.ran_e_explain import DEAREST, HARDSWISH, RELU6, Row, explain, layer_rows
from benchmarks.ran_e_layers import Compiled, Exported
from chipfit.cli.console import Terminal
from chipfit.errors import UnknownName
from chipfit.targets.ethos_u import FAMILIES, EthosU

BASE = "EfficientNet-Lite0"
NETWORKS = {
    "ResNet-18": "resnet18", "RepVGG-A0": "repvgg_a0", "RAN-e-GT": "ran_e_gt", "RAN-e-C": "ran_e_c",
}  # fmt: skip
#: Inferences a second relative to EfficientNet-Lite0; the configuration is not published.
PAPER = {
    "u55": dict(zip(NETWORKS, (0.46, 0.72, 1.16, 1.06), strict=True)),
    "u65": dict(zip(NETWORKS, (0.48, 0.69, 1.49, 1.28), strict=True)),
}
#: System configurations and memory modes by family. Memory that cannot be written rules out
#: Dedicated_Sram; Sram_Only needs all weights on the chip, which is an upper bound for U55.
LAYOUTS = {
    "u55": (
        ("Ethos_U55_High_End_Embedded", "Shared_Sram"),
        ("Ethos_U55_High_End_Embedded", "Sram_Only"),
        ("Ethos_U55_Deep_Embedded", "Shared_Sram"), ("Ethos_U55_Deep_Embedded", "Sram_Only"),
    ),
    "u65": (
        ("Ethos_U65_Client_Server", "Dedicated_Sram_384KB"),
        ("Ethos_U65_Client_Server", "Dedicated_Sram_512KB"),
        ("Ethos_U65_Client_Server", "Shared_Sram"),
        ("Ethos_U65_High_End", "Dedicated_Sram_384KB"), ("Ethos_U65_High_End", "Shared_Sram"),
        ("Ethos_U65_Mid_End", "Dedicated_Sram_384KB"), ("Ethos_U65_Embedded", "Shared_Sram"),
    ),
    "u85": (
        ("Ethos_U85_SYS_DRAM_Mid", "Dedicated_Sram_384KB"),
        ("Ethos_U85_SYS_DRAM_Mid", "Shared_Sram"),
        ("Ethos_U85_SYS_Flash_High", "Shared_Sram"),
    ),
}  # fmt: skip

#: Configurations that are explained layer by layer.
EXPLAINED = (
    ("ethos-u55-256", "Ethos_U55_High_End_Embedded", "Shared_Sram"),
    ("ethos-u55-256", "Ethos_U55_High_End_Embedded", "Sram_Only"),
    ("ethos-u55-64", "Ethos_U55_High_End_Embedded", "Sram_Only"),
    ("ethos-u65-256", "Ethos_U65_Client_Server", "Shared_Sram"),
    ("ethos-u65-512", "Ethos_U65_High_End", "Dedicated_Sram_384KB"),
    ("ethos-u85-256", "Ethos_U85_SYS_DRAM_Mid", "Dedicated_Sram_384KB"),
)
#: Compiled networks by label, one mapping per configuration.
Results = Sequence[tuple[EthosU, Mapping[str, Compiled]]]


def place(target: EthosU) -> Row:
    """Return the columns that name a configuration."""
    config = target.config
    return {"target": target.name, "system config": config.system_config.partition("_U")[2][3:],
            "memory mode": config.memory_mode}  # fmt: skip


def speed(of: Mapping[str, Compiled], label: str, base: str = BASE) -> float:
    """Return inferences a second in units of ``base``'s."""
    return of[base].result.latency_ms / of[label].result.latency_ms


def speed_rows(results: Results, nets: Sequence[str]) -> list[Row]:
    """Return one row per configuration, and the paper's above those of its family."""
    rows: list[Row] = []
    families: set[str] = set()
    for target, of in results:
        family = target.name.split("-")[1]
        if family in PAPER and family not in families:
            paper = {**dict.fromkeys(place(target), ""), "target": f"paper, {family.upper()}"}
            rows.append({**paper, f"{BASE} /s": None, **{n: PAPER[family][n] for n in nets}})
        families.add(family)
        base = {f"{BASE} /s": 1e3 / of[BASE].result.latency_ms}
        rows.append({**place(target), **base, **{net: speed(of, net) for net in nets}})
    return rows


def range_rows(results: Results, nets: Sequence[str]) -> list[Row]:
    """Return lowest, median and highest figure of each family beside the paper's."""
    rows = []
    for family in dict.fromkeys(target.name.split("-")[1] for target, _ in results):
        own = [(t, of) for t, of in results if t.name.split("-")[1] == family]
        for net in nets:
            values = {" ".join(place(t).values()): speed(of, net) for t, of in own}
            low, high = min(values, key=lambda k: values[k]), max(values, key=lambda k: values[k])
            rows.append({
                "family": family, "network": net, "paper": PAPER.get(family, {}).get(net),
                "lowest": values[low], "median": statistics.median(values.values()),
                "highest": values[high], "lowest on": low, "highest on": high,
            })  # fmt: skip
    return rows


def activation_rows(results: Results, nets: Sequence[str]) -> list[Row]:
    """Return what RAN-e would be with ReLU6, and against a baseline with hardswish."""
    rows = []
    for target, of in results:
        row = place(target)
        for net in nets:
            row[net] = speed(of, net)
            row[f"{net}, ReLU6"] = speed(of, net + RELU6)
            row[f"{net}, both hardswish"] = speed(of, net, BASE + HARDSWISH)
        rows.append(row)
    return rows


def configurations(accelerators: Sequence[str], modes: Sequence[str]) -> list[EthosU]:
    """Return the accelerators' layouts in the memory modes that were asked for."""
    return [
        EthosU(name, system, mode)
        for name in accelerators
        for system, mode in LAYOUTS[name.split("-")[1]]
        if not modes or mode in modes
    ]


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Compile everything, compare and explain."""
    every = [f"ethos-{family}-{macs}" for family in LAYOUTS for macs in FAMILIES[family].macs]
    flags = parser("RAN-e against EfficientNet-Lite0 on Ethos-U")
    flags.add_argument("--targets", nargs="+", default=every)
    flags.add_argument("--modes", nargs="+", default=[], help="memory modes; all by default")
    flags.add_argument("--nets", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    flags.add_argument("--size", type=int, default=224, help="pixels a side")
    given = flags.parse_args(argv)
    for name in given.targets:
        if name not in every:
            raise UnknownName("Ethos-U target", name, every)
    settings = {key: value for key, value in vars(given).items() if key != "out"}
    report, terminal = Report("ran_e_table", settings, given.out), Terminal()
    rane = [net for net in given.nets if net.startswith("RAN-e")]
    specs = {BASE: "efficientnet_lite0", **{net: NETWORKS[net] for net in given.nets}}
    if rane:
        specs[BASE + HARDSWISH] = specs[BASE] + HARDSWISH
        specs |= {net + RELU6: NETWORKS[net] + RELU6 for net in rane}
    files = {
        label: Exported.of(f"{spec}@1x3x{given.size}x{given.size}") for label, spec in specs.items()
    }
    results = []
    for target in configurations(given.targets, given.modes):
        terminal.progress(" ".join(place(target).values()))
        of = {label: file.compiled_for(target) for label, file in files.items()}
        results.append((target, of))
    title = f"inferences a second, relative to {BASE}"
    report.table(
        title, speed_rows(results, given.nets),
        "Vela's estimates, with normal weights; the paper does not tell its configuration",
    )  # fmt: skip
    report.table("the same by family", range_rows(results, given.nets))
    if rane:
        report.table(
            f"{title}, by activation", activation_rows(results, rane),
            f"both hardswish: {BASE} has it too",
        )  # fmt: skip
        by_config = {tuple(vars(target.config).values()): of for target, of in results}
        chosen = [by_config[config] for config in EXPLAINED if config in by_config]
        for of in chosen:
            title = " ".join(place(of[BASE].target).values())
            explain(report, of, title, [BASE, *given.nets], rane)
        for label in [BASE, *rane] if chosen else []:
            one = chosen[0][label]
            title = " ".join(place(one.target).values())
            report.table(f"{title}: dearest layers of {label}", layer_rows(one, DEAREST))
    report.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
