from .experiments import (
    SWEEPS as SWEEPS,
    run_sweeps as run_sweeps,
)
from .training import (
    OptimizerConfig as OptimizerConfig,
    TrainConfig as TrainConfig,
    train as train,
)
from .worlds import (
    WORLDS as WORLDS,
)
