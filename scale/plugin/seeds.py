"""The seed of every trajectory, and of what goes on with one that was interrupted."""

from __future__ import annotations

import hashlib
from typing import Any

from verl.workers.rollout.llm_server import FullyAsyncLLMServerClient, LLMServerClient


def trajectory_seed(seed: int, step: int, key: str, session: int) -> int:
    """Return the seed of a trajectory, in [0, 2^31): a hash of the run's seed, the step, the key and the number.

    `key` is the prompt's, `session` the number of the trajectory in its group. `step` is -1 in validation: all
    validations draw alike, so that policies are compared, not draws.

    Examples
    --------
    >>> trajectory_seed(1, 3, "a", 0) == trajectory_seed(1, 3, "a", 0) != trajectory_seed(1, 3, "a", 1)
    True
    """
    text = f"{seed}/{step}/{session}/{key}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


class _Part(LLMServerClient):  # type: ignore[misc]  # verl is untyped
    """Client that asks for one part of a response, the tokens so far being a part of the prompt."""

    async def generate(self, request_id: Any, *, prompt_ids: Any, sampling_params: Any, **kwargs: Any) -> Any:
        seed = trajectory_seed(sampling_params["seed"], len(prompt_ids), "", 0)
        sampling_params = {**sampling_params, "seed": seed}
        return await super().generate(request_id, prompt_ids=prompt_ids, sampling_params=sampling_params, **kwargs)


class ContinuingClient(FullyAsyncLLMServerClient, _Part):  # type: ignore[misc]  # verl is untyped
    """verl's client that goes on with an interrupted response, by random numbers that it has not seen.

    vLLM begins the sequence of a seed anew with every request. The same seed would draw the same numbers for the rest
    of a response as for its beginning.
    """
