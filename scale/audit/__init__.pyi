from .readers import (
    Log as Log,
)
from .replay_log import (
    audit as audit,
)
