from .intervals import (
    NUM_RESAMPLES as NUM_RESAMPLES,
    Interval as Interval,
    crossed_bootstrap_interval as crossed_bootstrap_interval,
    interquartile_mean as interquartile_mean,
    paired_gain as paired_gain,
    stratified_bootstrap_interval as stratified_bootstrap_interval,
)
from .passk import (
    exact_pass_at_k as exact_pass_at_k,
    pass_at_k as pass_at_k,
)
from .rates import (
    jeffreys_interval as jeffreys_interval,
    ratio_intervals as ratio_intervals,
)
