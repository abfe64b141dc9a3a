from .bounds import (
    MAX_BUDGET as MAX_BUDGET,
)
from .history import (
    SuccessHistory as SuccessHistory,
)
from .log_estimates import (
    NOISE_ESTIMATORS as NOISE_ESTIMATORS,
    degenerate_bounds as degenerate_bounds,
    implied_weights as implied_weights,
    moved_weight as moved_weight,
    noise_bounds as noise_bounds,
    squared_change as squared_change,
)
from .log_intervals import (
    NoiseRatio as NoiseRatio,
    estimate_variance as estimate_variance,
    left_out as left_out,
    noise_ratio as noise_ratio,
)
from .log_replay import (
    past_counts as past_counts,
    replay as replay,
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
    Observe as Observe,
    Problem as Problem,
    Rounds as Rounds,
    allocate as allocate,
    get_allocator as get_allocator,
    register as register,
    spends_in_rounds as spends_in_rounds,
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
