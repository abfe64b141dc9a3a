"""DynaMO inside verl and vLLM: a plug-in, the same rules and formulas as in `theory`, and configuration.

Importing this package loads nothing heavy. `python -m scale` is the way in; verl finds `scale.plugin` by itself.

- `plugin`: what runs in verl's processes: trainer, order of rows, loss, engine, statistics, agent loop, CPU platform.
- `launch`: before a run starts: configuration, checks, estimate, the paper's experiments, and the processes.
- `run`: while it runs: supervisor, guard, what its processes report, and its records.
- `data`: training data and benchmarks, from the hub to Parquet.
- `rewards`: whether a response is right.
- `evaluation`: pass@k of checkpoints.
- `audit`: what a rule would have changed, from the logs of any run.
- `conf`: hydra's files: models, clusters, the paper's table. `examples`: two nodes, by Slurm and by Ray.
- `text`: what these share of texts. `tiny`: a model and a task made in seconds. `smoke`: all commands on it.
"""
