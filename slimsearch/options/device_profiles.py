"""Profiles of devices for ``--target``: memory, runtime and threads."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from slimsearch.errors import SlimsearchError, did_you_mean
from slimsearch.options.configuration import Configuration
from slimsearch.reading import mismatch, read_yaml
from slimsearch.runtimes import ON_ONNX, SUFFIXES

_SHIPPED = Path(__file__).with_name("devices")
_SCHEMA = {
    "runtime": str, "threads?": int, "ram_kib?": int | float, "flash_kib?": int | float,
    "reserved_ram_kib?": int | float, "reserved_flash_kib?": int | float,
}  # fmt: skip
_C = "c"
_FORMATS = {_C: _C, **dict.fromkeys(ON_ONNX, "onnx"), **{runtime: runtime for runtime in SUFFIXES}}


@dataclass(frozen=True)
class DeviceProfile:
    """A device that networks have to fit.

    Attributes:
        name: of the profile.
        runtime: "c" for a C file; otherwise that of the file, see ``--runtime``.
        threads: of the runtime.
        ram_kib, flash_kib: memory of the device; None: no limit.
        reserved_ram_kib, reserved_flash_kib: of these, for the stack and the program.
    """

    name: str
    runtime: str
    threads: int = 1
    ram_kib: float | None = None
    flash_kib: float | None = None
    reserved_ram_kib: float = 0.0
    reserved_flash_kib: float = 0.0

    @property
    def format(self) -> str:
        """The format of ``slimsearch export``."""
        return _FORMATS[self.runtime]


def device_profiles() -> list[str]:
    """Names of the shipped profiles."""
    return sorted(path.stem for path in _SHIPPED.glob("*.yaml"))


def device_profile(name: str) -> DeviceProfile:
    """The profile of a name or YAML file.

    Raises:
        SlimsearchError: there is no such profile, or it is invalid.
    """
    path = Path(name).expanduser()
    if name in device_profiles():
        path = _SHIPPED / f"{name}.yaml"
    try:
        found = read_yaml(path)
    except FileNotFoundError:
        similar, listed = did_you_mean(name, device_profiles()), ", ".join(device_profiles())
        raise SlimsearchError(f"--target: there is no file '{name}', profiles: {listed}{similar}") from None
    wrong = mismatch(found, _SCHEMA, path.stem)
    if wrong is not None:
        raise SlimsearchError(f"--target: {wrong}")
    fields = [field.name for field in dataclasses.fields(DeviceProfile) if field.name != "name"]
    for key in found:
        if key not in fields:
            raise SlimsearchError(
                f"--target '{name}': there is no '{key}'; it has {', '.join(fields)}{did_you_mean(str(key), fields)}"
            )
    profile = DeviceProfile(path.stem, **found)
    if profile.runtime not in _FORMATS:
        raise SlimsearchError(f"--target '{name}': runtime '{profile.runtime}' is none of {', '.join(_FORMATS)}")
    if profile.threads < 1:
        raise SlimsearchError(f"--target '{name}': threads {profile.threads} is less than 1")
    for kind, size, reserved in (
        ("ram_kib", profile.ram_kib, profile.reserved_ram_kib),
        ("flash_kib", profile.flash_kib, profile.reserved_flash_kib),
    ):
        if reserved < 0 or (size is not None and size <= reserved):
            raise SlimsearchError(f"--target '{name}': {kind} {size} leaves nothing beside reserved_{kind} {reserved}")
        if size is not None and profile.runtime != _C:
            raise SlimsearchError(f"--target '{name}': {kind} is for runtime c, whose memory is known beforehand")
    return profile


def with_target(configuration: Configuration) -> Configuration:
    """The options with the limits, the runtime and the threads of the target, where they have none.

    Raises:
        SlimsearchError: there is no such profile.
    """
    if configuration.target is None:
        return configuration
    profile = device_profile(configuration.target)
    changes: dict[str, object] = {}
    if configuration.max_ram_kib is None and profile.ram_kib is not None:
        changes["max_ram_kib"] = profile.ram_kib - profile.reserved_ram_kib
    if configuration.max_flash_kib is None and profile.flash_kib is not None:
        changes["max_flash_kib"] = profile.flash_kib - profile.reserved_flash_kib
    defaults = Configuration.__dataclass_fields__
    if configuration.latency_threads == defaults["latency_threads"].default:
        changes["latency_threads"] = profile.threads
    if configuration.runtime == defaults["runtime"].default and profile.runtime != _C:
        changes["runtime"] = profile.runtime
    return configuration.replace(**changes)
