"""What vLLM's workers run of ours in an evaluation: a store on the loopback address, and seeded draws."""

from __future__ import annotations

from typing import Any

from scale.plugin.loopback_store import WorkerExtension
from scale.plugin.vllm_sampling import seed_rows


class EvaluationWorker(WorkerExtension):
    """Extension of a vLLM worker (`worker_extension_cls`)."""

    def __new__(cls, **kwargs: Any) -> Any:
        """Prepare the process for the first model."""
        seed_rows(kwargs["vllm_config"])
        return super().__new__(cls)
