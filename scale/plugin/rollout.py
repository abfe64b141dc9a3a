"""Where verl's weights reach vLLM: in our runs, through a socket of the run's own. Imported after verl's table.

verl sends weights through a socket in /tmp that it names after Ray's job, which is 01000000 in every Ray that a run
starts by itself. Two runs side by side would share it: each could get the other's weights, or wait for ever. So both
ends look for it in the run's own temporary folder.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from verl.workers.rollout import base

from scale.run import RUN_ID

if RUN_ID in os.environ:
    base._ROLLOUT_REGISTRY["vllm", "async"] = "scale.plugin.vllm_worker.RunServerAdapter"


def of_this_run(socket: str, environ: Mapping[str, str] = os.environ) -> str:
    """Return the address of verl's socket in this run's temporary folder; on a Ray that ran before, verl's own.

    Examples
    --------
    >>> of_this_run("ipc:///tmp/rl-colocate-zmq-01000000.sock", {RUN_ID: "1", "RAY_TMPDIR": "/tmp/dynamo1"})
    'ipc:///tmp/dynamo1/rl-colocate-zmq-01000000.sock'
    """
    folder = environ.get("RAY_TMPDIR") if RUN_ID in environ else None
    return socket.replace("ipc:///tmp/", f"ipc://{folder}/") if folder else socket
