"""Constants that others measured: which form predicts an operation on a device, and its rung."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from gnnbench.cluster import Device
from gnnbench.costs.devices import DeviceFacts, facts_of, read_text
from gnnbench.costs.facts import Facts, Floats
from gnnbench.costs.kernels import KERNELS, Kernel, Shapes
from gnnbench.strict import build, raise_all

PREFERRED: Mapping[tuple[str, float], str] = {
    ("spmm", 4.0): "cusparse",
    ("sddmm", 4.0): "rode_sddmm",
    ("gemm", 2.0): "gemm",
    ("gemm", 4.0): "gemm_fp32",
    ("gather", 4.0): "gather",
    ("scatter", 4.0): "gather",
    ("elementwise", 4.0): "stream",
    ("optimizer", 4.0): "stream",
}
"""The measured kernel used for each operation and bytes of an element."""
_OF_FRAMEWORKS = ("cusparse", "gemm", "gemm_fp32", "gather", "stream")
"""Kernels that frameworks call. RoDe's SDDMM is several times faster than those of DGL and PyG:
published epochs of attention on A100s are met worse with it than with a roofline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedForm:
    """Coefficients of a kernel as `forms.toml` holds them; `device` "" is all devices together.

    `radius` and `median_error` are those of matrices left out, and of devices left out for "".
    """

    kernel: str
    device: str
    params: dict[str, float]
    radius: float
    median_error: float
    points: int
    devices: tuple[str, ...]
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelModel:
    """A kernel on a device: its form, the rung of its constants and the radius that they earned."""

    kernel: Kernel
    device: DeviceFacts
    form: FittedForm
    grade: str

    def seconds(self, shapes: Shapes) -> Floats:
        """Seconds of kernels alone, without what a framework adds."""
        return self.kernel.seconds(shapes, self.device, self.form.params)

    def on(self, device: Device) -> KernelModel:
        """The same on a device whose cluster file states other bandwidths, peaks or caches."""
        stated = dataclasses.replace(
            self.device,
            memory_bytes_per_s=device.memory_bytes_per_s.value,
            cache_bytes=device.cache_bytes.value,
            fp32_flops_per_s=device.peak_flops_per_s.float32.value,
        )
        return dataclasses.replace(self, device=stated)

    def seconds_of(self, facts: Facts) -> Floats:
        """Seconds of steps, whose degree variation is taken to be typical (1).

        Reads whose order is random by nature, as of a sampled block, are priced as those of a
        matrix whose vertices were shuffled.
        """
        ones = np.ones(len(facts))
        shuffled = np.zeros(len(facts)) if facts.blind else (~facts.ordered).astype(np.float64)
        return self.seconds(
            Shapes(
                rows=facts.bytes if self.kernel.name == "stream" else facts.rows,
                columns=np.maximum(facts.source_rows, 1.0),
                nonzeros=facts.nonzeros,
                width=facts.width,
                inner=facts.inner,
                skew=ones,
                longest=np.nan * ones,
                shuffled=shuffled,
                element_bytes=facts.element_bytes,
            )
        )


@cache
def fitted_forms() -> dict[tuple[str, str], FittedForm]:
    """Every form of the catalogue by kernel and device."""
    problems: list[str] = []
    built = [
        build(FittedForm, entry, name, problems)
        for name in ("forms.toml", "cited.toml")
        for entry in tomllib.loads(read_text(name))["forms"]
    ]
    raise_all(problems)
    return {(form.kernel, form.device): form for form in built if form is not None}


@cache
def model_of(kernel: str, device: str) -> KernelModel | None:
    """The form of a kernel on a device, else that of all devices; None without measurements."""
    facts = facts_of(device)
    if facts is None or not KERNELS[kernel].applies(facts):
        return None
    forms = fitted_forms()
    own = next((f for (k, d), f in forms.items() if k == kernel and _chip(d) == _chip(facts)), None)
    form = own or forms.get((kernel, ""))
    if form is None:
        return None
    here = own is not None and own.device == facts.device
    rung = "measured elsewhere" if here else "transferred"
    return KernelModel(kernel=KERNELS[kernel], device=facts, form=form, grade=rung)


def step_model(device: str, operation: str, facts: Facts) -> KernelModel | None:
    """What predicts an operation's steps on a device; None where no table has such kernels.

    Tables hold products with one weight per entry, in one precision. Attention's products with a
    weight per head are another kernel.

    Args:
        device: its name.
        operation: kind of the steps: "spmm", "sddmm", "gemm", "gather", "scatter".
        facts: their shapes.
    """
    kernel = PREFERRED.get((operation, facts.element_bytes), "")
    if kernel not in _OF_FRAMEWORKS:
        return None
    per_head = operation == "spmm" and bool(np.any(facts.inner > 1.0))
    return None if per_head else model_of(kernel, device)


def _chip(device: DeviceFacts | str) -> str:
    """A device's name without its memory: A100-40GB and A100-80GB compute alike."""
    name = device if isinstance(device, str) else device.device
    return name.removesuffix("-40GB").removesuffix("-80GB")
