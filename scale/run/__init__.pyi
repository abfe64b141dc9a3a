from .guard import (
    RUN_ID as RUN_ID,
)
from .reports import (
    RUN_FOLDER as RUN_FOLDER,
    Failure as Failure,
    asked_to_stop as asked_to_stop,
    beat as beat,
    pulse as pulse,
    read_failures as read_failures,
    read_progress as read_progress,
    report_failure as report_failure,
    reported as reported,
)
from .supervisor import (
    Outcome as Outcome,
    interruptible as interruptible,
    supervise as supervise,
)
