from .crossed import (
    crossed_interval as crossed_interval,
)
from .families import (
    MARGIN as MARGIN,
    SIGNS as SIGNS,
    holm as holm,
    in_family as in_family,
    is_level as is_level,
)
from .intervals import (
    NUM_RESAMPLES as NUM_RESAMPLES,
    Interval as Interval,
    interquartile_mean as interquartile_mean,
    stratified_bootstrap_interval as stratified_bootstrap_interval,
)
from .paired import (
    BOOTSTRAP_SEEDS as BOOTSTRAP_SEEDS,
    SIGN_SEEDS as SIGN_SEEDS,
    interval_method as interval_method,
    paired_gain as paired_gain,
    paired_p_value as paired_p_value,
)
from .passk import (
    exact_pass_at_k as exact_pass_at_k,
    pass_at_k as pass_at_k,
)
from .rates import (
    jeffreys_interval as jeffreys_interval,
)
