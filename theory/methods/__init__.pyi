from .grids import (
    STOCK as STOCK,
    STOCK_TITLE as STOCK_TITLE,
    Budget as Budget,
)
from .table import (
    METHODS as METHODS,
    Method as Method,
    get_method as get_method,
    register_loss as register_loss,
    register_method as register_method,
    register_shaping as register_shaping,
)
