from .scoring import (
    compute_score as compute_score,
)
