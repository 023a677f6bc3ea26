"""Why a published row has no prediction."""

from __future__ import annotations

from dataclasses import dataclass

from gnnbench.errors import Unsupported


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a row has no prediction; rows are counted by `kind`, `detail` is the row's own."""

    kind: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}" if self.detail else self.kind


class NotModelled(Unsupported):
    """A published row that no run of gnnbench describes; carries the `Reason`."""

    def __init__(self, kind: str, detail: str = "") -> None:
        self.reason = Reason(kind, detail)
        super().__init__(str(self.reason))
