from . import entropy_change as entropy_change
from .entropy_change import (
    first_order as first_order,
    first_order_sequence as first_order_sequence,
    update_coefficient as update_coefficient,
)
from .softmax import (
    TokenStatistics as TokenStatistics,
    centred_log_prob as centred_log_prob,
    expected_score_norm_squared as expected_score_norm_squared,
    log_softmax as log_softmax,
    pi_lambda as pi_lambda,
    require_statistics as require_statistics,
    score_norm_bound as score_norm_bound,
    score_norm_squared as score_norm_squared,
    token_statistics as token_statistics,
)
