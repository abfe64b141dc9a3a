"""Tabular softmax worlds: reinforcement learning with verifiable rewards in seconds, many seeds as one computation.

A prompt is a chain of tokens, each drawn from a row of a table of logits, and the reward is 1 if every token is
correct. With one token per prompt and a row for each it is a bandit; rows that prompts share are skills. Every
expectation over the policy is a finite sum, so that what a run reports (pass@1, pass@32, entropy) is exact and only the
training itself is random. The methods are those of `theory.methods`; nothing here knows one by name.

`python -m toy run --help` trains, `python -m toy sweep --help` runs whole experiments (`toy.experiments.sweeps`), and
`python -m toy list` names methods, worlds, allocation rules and sweeps.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
