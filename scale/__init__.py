"""DynaMO inside verl and vLLM: a plug-in, the same rules and formulas as in `theory`, and configuration.

Importing this package loads nothing heavy. `python -m scale` is the way in; verl finds `scale.plugin` by itself.
"""
