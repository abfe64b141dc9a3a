from .scoring import (
    answer_reader as answer_reader,
    can_read as can_read,
    compute_score as compute_score,
)
