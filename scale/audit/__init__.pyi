from .log import (
    Columns as Columns,
    Log as Log,
)
from .readers import (
    FORMATS as FORMATS,
    read_log as read_log,
)
from .replay_log import (
    audit as audit,
)
