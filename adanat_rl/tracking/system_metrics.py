"""Samples of CPU, memory, disk, network and GPU, as MLflow's own monitors take them."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

_INTERVAL_S = 10.0


@dataclass(frozen=True)
class Sample:
    """Numbers of one moment, by MLflow's names."""

    time_ms: int
    numbers: dict[str, float]


class SystemSampler:
    """Takes samples when asked; who asks sends them."""

    def __init__(self) -> None:
        from mlflow.environment_variables import MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL
        from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
        from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
        from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
        from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

        self.interval_s = float(MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL.get() or _INTERVAL_S)
        self._monitors: list[Any] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
        with suppress(Exception):  # no GPU, or no package that knows it
            self._monitors.append(GPUMonitor())

    def sample(self) -> Sample:
        """The machine now."""
        numbers: dict[str, float] = {}
        for monitor in self._monitors:
            monitor.collect_metrics()
            numbers |= {f"system/{name}": float(value) for name, value in monitor.aggregate_metrics().items()}
            monitor.clear_metrics()
        return Sample(int(time.time() * 1000), numbers)
