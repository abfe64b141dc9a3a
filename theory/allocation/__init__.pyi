from .bounds import (
    MAX_BUDGET as MAX_BUDGET,
)
from .history import (
    SuccessHistory as SuccessHistory,
)
from .log_replay import (
    degenerate_bounds as degenerate_bounds,
    implied_weights as implied_weights,
    jeffreys_interval as jeffreys_interval,
    moved_weight as moved_weight,
    noise_bounds as noise_bounds,
    past_counts as past_counts,
    ratio_intervals as ratio_intervals,
    replay as replay,
    squared_change as squared_change,
)
from .measures import (
    concentration as concentration,
    degenerate_groups as degenerate_groups,
    wasted_share as wasted_share,
)
from .optimum import (
    optimal as optimal,
    optimal_any as optimal_any,
    optimal_concave as optimal_concave,
)
from .rules import (
    ALLOCATORS as ALLOCATORS,
    ORACLES as ORACLES,
    Allocator as Allocator,
    Knowledge as Knowledge,
    get_allocator as get_allocator,
    register as register,
)
from .shares import (
    NEGLIGIBLE_WEIGHT as NEGLIGIBLE_WEIGHT,
    proportional as proportional,
    water_level as water_level,
)
from .variance import (
    bernoulli_variance as bernoulli_variance,
    optimal_variance_ratio as optimal_variance_ratio,
    total_variance as total_variance,
    variance_ratio as variance_ratio,
)
