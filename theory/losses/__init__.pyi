from .aggregation import (
    AGGREGATIONS as AGGREGATIONS,
    aggregate as aggregate,
    aggregation_weights as aggregation_weights,
)
from .modulation import (
    RELEASED_SCRIPT as RELEASED_SCRIPT,
    Modulated as Modulated,
    Modulation as Modulation,
    Scope as Scope,
    compensation as compensation,
    instability as instability,
    modulate as modulate,
    scope_of as scope_of,
    stabilization as stabilization,
)
from .selection import (
    CovarianceScope as CovarianceScope,
    clip_cov_tokens as clip_cov_tokens,
    covariance as covariance,
    fork_tokens as fork_tokens,
    kl_cov_tokens as kl_cov_tokens,
)
from .surrogate import (
    LARGEST_CLIP as LARGEST_CLIP,
    ClipCov as ClipCov,
    ClippedSurrogate as ClippedSurrogate,
    EntropyAdvantages as EntropyAdvantages,
    EntropyBonus as EntropyBonus,
    ForkTokens as ForkTokens,
    KlCov as KlCov,
    Selection as Selection,
    TokenLoss as TokenLoss,
    clip_cov as clip_cov,
    clipped_surrogate as clipped_surrogate,
    entropy_advantages as entropy_advantages,
    entropy_bonus as entropy_bonus,
    kl_cov as kl_cov,
    policy_loss as policy_loss,
    select_tokens as select_tokens,
)
