# SPDX-License-Identifier: Apache-2.0
"""What Vela compiles for: configurations in the ``vela.ini`` that is bundled with it."""

from __future__ import annotations

import configparser
import importlib.metadata
import importlib.util
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from chipfit.errors import MissingBackend, UnknownName

CONFIG_FILE = "Arm/vela.ini"  # a path of this form means the file bundled with Vela

#: Bytes that one AXI port moves in a cycle of the NPU's clock, by generation.
PORT_BYTES = {"u55": 8, "u65": 16, "u85": 16}
_MEMORY_NAMES = {
    "Sram": "SRAM", "Dram": "DRAM", "OffChipFlash": "off-chip flash",
    "OnChipFlash": "on-chip flash",
}  # fmt: skip


@dataclass(frozen=True)
class VelaConfig:
    """What Vela compiles for.

    Args:
        accelerator: Vela's name of it, for instance ``"ethos-u55-128"``.
        system_config: Section of the bundled ``vela.ini``: clock and memories.
        memory_mode: Section of the same file: what lies where.
    """

    accelerator: str
    system_config: str
    memory_mode: str


def vela_version() -> str:
    """Return the version of the installed compiler.

    Raises:
        MissingBackend: It is not installed.
    """
    try:
        return importlib.metadata.version("ethos-u-vela")
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingBackend(
            "the Ethos-U targets need the Vela compiler", "pip install 'chipfit[ethos-u]'"
        ) from error


@lru_cache(maxsize=1)
def _bundled() -> configparser.ConfigParser:
    vela_version()
    # Beside the package rather than through it: importing the compiler takes half a second.
    spec = importlib.util.find_spec("ethosu")
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        path = Path(folder) / "config_files" / CONFIG_FILE
        if path.is_file():
            parser = configparser.ConfigParser()
            parser.read_string(path.read_text())
            return parser
    raise MissingBackend(
        "the installed Vela has no bundled vela.ini", "pip install 'chipfit[ethos-u]'"
    )


def bundled_sections() -> tuple[list[str], list[str]]:
    """Return the system configurations and memory modes in the ``vela.ini`` bundled with Vela."""
    pairs = [section.partition(".") for section in _bundled().sections()]
    systems = [name for kind, _, name in pairs if kind == "System_Config"]
    return systems, [name for kind, _, name in pairs if kind == "Memory_Mode"]


def core_clock_hz(config: VelaConfig) -> float:
    """Return the NPU's clock in the system configuration."""
    return _bundled().getfloat(f"System_Config.{config.system_config}", "core_clock")


def arena_cache_bytes(config: VelaConfig) -> float:
    """Return the SRAM set aside for activations, infinite where the memory mode limits none."""
    return float(_memory_option(config, "arena_cache_size", math.inf))


def memory_speed(config: VelaConfig, use: str) -> tuple[str, float]:
    """Return the memory of one use, and its peak traffic in bytes per second.

    The port's width times the ports used, the memory's clock relative to the NPU's, and the NPU's
    clock: what Vela's own estimate divides by.

    Args:
        config: The configuration.
        use: ``"const"`` for weights, ``"arena"`` for tensors, ``"cache"`` for the fast part of the
            tensors' memory (the same as the arena's unless the memory mode dedicates SRAM to it).
    """
    parser = _bundled()
    section = f"System_Config.{config.system_config}"
    port = str(_memory_option(config, f"{use}_mem_area", "Axi0")).lower()
    memory = parser.get(section, f"{port}_port")
    per_cycle = (
        PORT_BYTES[config.accelerator.split("-")[1]]
        * parser.getint(section, f"{memory}_ports_used", fallback=1)
        * parser.getfloat(section, f"{memory}_clock_scale", fallback=1.0)
    )
    return _MEMORY_NAMES[memory], per_cycle * core_clock_hz(config)


def _memory_option(config: VelaConfig, name: str, default: float | str) -> float | str:
    parser = _bundled()
    section = f"Memory_Mode.{config.memory_mode}"
    while section:
        if parser.has_option(section, name):
            return parser.get(section, name)
        section = parser.get(section, "inherit", fallback="")
    return default


def check_config(config: VelaConfig) -> None:
    """Raise ``UnknownName`` unless the bundled ``vela.ini`` has both sections of ``config``."""
    systems, modes = bundled_sections()
    family = "_".join(config.accelerator.split("-")[:2]).capitalize() + "_"  # Ethos_u55_
    own = [name for name in systems if name.lower().startswith(family.lower())]
    if config.system_config not in own:
        raise UnknownName(f"system_config of {config.accelerator}", config.system_config, own)
    if config.memory_mode not in modes:
        raise UnknownName(f"memory_mode of {config.accelerator}", config.memory_mode, modes)
