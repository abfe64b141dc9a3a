from .config import (
    OPTIMIZERS as OPTIMIZERS,
    OptimizerConfig as OptimizerConfig,
    TrainConfig as TrainConfig,
)
from .loop import (
    DEVICES as DEVICES,
    Run as Run,
    Trainer as Trainer,
    train as train,
)
from .metrics import (
    METRICS as METRICS,
)
