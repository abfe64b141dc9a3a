from .tabular import (
    WORLDS as WORLDS,
    AnyPopulation as AnyPopulation,
    Beta as Beta,
    LogisticNormal as LogisticNormal,
    Population as Population,
    SkillChainPopulation as SkillChainPopulation,
    World as World,
)
