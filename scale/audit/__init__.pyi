from .comparison import (
    audit as audit,
)
from .log import (
    Columns as Columns,
    Log as Log,
)
from .readers import (
    FORMATS as FORMATS,
    read_log as read_log,
)
