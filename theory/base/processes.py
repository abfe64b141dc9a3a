"""Processes of a pool, which must not outlive the process that made them."""

from __future__ import annotations

import multiprocessing
import signal
import threading


def end_with_parent() -> None:
    """End this process as soon as its parent has ended, which may be killed: it would wait for work for ever.

    A process that `multiprocessing` did not make has no such parent, and goes on.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        signal.raise_signal(signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()
