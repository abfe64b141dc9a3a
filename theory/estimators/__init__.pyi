from .advantages import (
    ADVANTAGES as ADVANTAGES,
    WReinforce as WReinforce,
    dr_grpo as dr_grpo,
    grpo as grpo,
    maxrl as maxrl,
    reinforce as reinforce,
    rloo as rloo,
    w_reinforce as w_reinforce,
)
from .group_gradient import (
    ESTIMATORS as ESTIMATORS,
    Coefficients as Coefficients,
    ConditionalPolicy as ConditionalPolicy,
    Moments as Moments,
)
from .moments import (
    expected_progress as expected_progress,
    gradient_moments as gradient_moments,
    group_advantages as group_advantages,
    group_coefficients as group_coefficients,
    implied_weight as implied_weight,
    single_rollout_variance as single_rollout_variance,
)
from .optimal import (
    optimal_scale as optimal_scale,
)
from .progress import (
    CENTRED as CENTRED,
    OBJECTIVES as OBJECTIVES,
    posterior_progress as posterior_progress,
)
from .stopping import (
    GroupLaw as GroupLaw,
    StoppingRule as StoppingRule,
    gradient_moments_stopped as gradient_moments_stopped,
    stopped_coefficients as stopped_coefficients,
    stopping_law as stopping_law,
)
