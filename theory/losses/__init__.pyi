from .aggregation import (
    AGGREGATIONS as AGGREGATIONS,
    aggregate as aggregate,
    aggregation_weights as aggregation_weights,
    sequence_weights as sequence_weights,
)
from .checks import (
    LARGEST_CLIP as LARGEST_CLIP,
)
from .configured import (
    ClipCov as ClipCov,
    ClippedSurrogate as ClippedSurrogate,
    KlCov as KlCov,
    policy_loss as policy_loss,
    select_tokens as select_tokens,
)
from .entropy import (
    EntropyAdvantages as EntropyAdvantages,
    EntropyBonus as EntropyBonus,
    entropy_advantages as entropy_advantages,
    entropy_bonus as entropy_bonus,
)
from .importance import (
    importance_weights as importance_weights,
)
from .modulation import (
    RELEASED_SCRIPT as RELEASED_SCRIPT,
    Modulated as Modulated,
    Modulation as Modulation,
    compensation as compensation,
    instability as instability,
    modulate as modulate,
    stabilization as stabilization,
)
from .protocol import (
    Loss as Loss,
    Selection as Selection,
    Shaped as Shaped,
    Shaping as Shaping,
    TokenLoss as TokenLoss,
)
from .scope import (
    Scope as Scope,
    scope_of as scope_of,
)
from .selection import (
    ForkTokens as ForkTokens,
    clip_cov_tokens as clip_cov_tokens,
    covariance as covariance,
    fork_tokens as fork_tokens,
    kl_cov_tokens as kl_cov_tokens,
)
from .surrogate import (
    clip_cov as clip_cov,
    clipped_surrogate as clipped_surrogate,
    kl_cov as kl_cov,
)
