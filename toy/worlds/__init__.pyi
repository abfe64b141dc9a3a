from .populations import (
    WORLDS as WORLDS,
    AnyPopulation as AnyPopulation,
    Beta as Beta,
    LogisticNormal as LogisticNormal,
    Population as Population,
    SkillChainPopulation as SkillChainPopulation,
)
from .tabular import (
    World as World,
)
