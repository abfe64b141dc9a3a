"""Tabular softmax worlds: reinforcement learning with verifiable rewards in seconds, many seeds as one computation.

A prompt is a row of logits over its answers, an episode is one answer, the reward is 1 if the answer is correct. Every
expectation over the policy is a finite sum, so that what a run reports (pass@1, pass@32, entropy) is exact and only
the training itself is random. The methods are those of `theory.methods`; nothing here knows one by name.

`python -m toy run --help` trains; `python -m toy list` names methods, worlds and allocation rules.
"""
