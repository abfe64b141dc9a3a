from .design import (
    AFTER_VISITS as AFTER_VISITS,
    AT_REFERENCE as AT_REFERENCE,
    HORIZONS as HORIZONS,
    TIMING as TIMING,
    Cell as Cell,
    Sweep as Sweep,
)
from .runner import (
    read_choices as read_choices,
    run_sweeps as run_sweeps,
)
from .summary import (
    MEASURES as MEASURES,
    Measure as Measure,
    SummaryRow as SummaryRow,
    summarise as summarise,
)
from .sweeps import (
    DEFAULT as DEFAULT,
    SWEEPS as SWEEPS,
    get_sweeps as get_sweeps,
)
