from .crossed import (
    crossed_bootstrap_interval as crossed_bootstrap_interval,
)
from .intervals import (
    Interval as Interval,
    interquartile_mean as interquartile_mean,
    stratified_bootstrap_interval as stratified_bootstrap_interval,
)
from .passk import (
    pass_at_k as pass_at_k,
)
