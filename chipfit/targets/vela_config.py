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
    parser = _bundled()
    section = f"Memory_Mode.{config.memory_mode}"
    while section:
        if parser.has_option(section, "arena_cache_size"):
            return parser.getfloat(section, "arena_cache_size")
        section = parser.get(section, "inherit", fallback="")
    return math.inf


def check_config(config: VelaConfig) -> None:
    """Raise ``UnknownName`` unless the bundled ``vela.ini`` has both sections of ``config``."""
    systems, modes = bundled_sections()
    family = "_".join(config.accelerator.split("-")[:2]).capitalize() + "_"  # Ethos_u55_
    own = [name for name in systems if name.lower().startswith(family.lower())]
    if config.system_config not in own:
        raise UnknownName(f"system_config of {config.accelerator}", config.system_config, own)
    if config.memory_mode not in modes:
        raise UnknownName(f"memory_mode of {config.accelerator}", config.memory_mode, modes)
