from .exports import (
    Checkpoint as Checkpoint,
    resolve_checkpoint as resolve_checkpoint,
)
from .generate import (
    read_samples as read_samples,
)
from .problems import (
    BenchmarkProblem as BenchmarkProblem,
    load_reward as load_reward,
    read_problems as read_problems,
)
