"""Table 3: the configuration of the paper and those of the runs here, as the runs themselves recorded them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from paper_figs.figure import Table
from paper_figs.result_files import Input, read_json, unfit
from paper_figs.scale_runs import find_runs
from theory.base.runs import lookup
from theory.base.tables import Column, TextTable, Value

Config = Mapping[str, Any]

METHOD = "dynamo"


class Parameter(NamedTuple):
    """A line: the paper's category and name, its value as printed, and where configurations have it.

    `toy` and `scale` are dotted paths, or functions of the configuration; None: there is no such thing.
    """

    category: str
    name: str
    published: str | None
    toy: str | Callable[[Config], Any] | None
    scale: str | Callable[[Config], Any] | None


def _range(low: str, high: str) -> Callable[[Config], str]:
    return lambda config: f"[{lookup(config, low)}, {lookup(config, high)}]"


_ACTOR, _ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"

PARAMETERS = (
    Parameter("Batch", "prompts of a step", "512", "batch_prompts", "data.train_batch_size"),
    Parameter(
        "Batch",
        "optimizer steps per rollout batch",
        "16 (512 / 32)",
        lambda c: c["num_minibatches"] * c["num_epochs"],
        lambda c: lookup(c, "data.train_batch_size") // lookup(c, f"{_ACTOR}.ppo_mini_batch_size"),
    ),
    Parameter("Rollout allocation", "average rollouts per prompt", "16", "rollouts", f"{_ROLLOUT}.n"),
    Parameter(
        "Rollout allocation",
        "dynamic range",
        "[8, 24]",
        _range("rollouts_low", "rollouts_high"),
        _range("dynamo.rollouts_low", "dynamo.rollouts_high"),
    ),
    Parameter("Rollout allocation", "discount of the history", None, "history_discount", "dynamo.history_discount"),
    Parameter("Optimization", "optimizer", None, "optimizer.name", f"{_ACTOR}.optim.optimizer"),
    Parameter("Optimization", "learning rate", None, "optimizer.learning_rate", f"{_ACTOR}.optim.lr"),
    Parameter("Optimization", "weight decay", "0.1 / 0.01", "optimizer.weight_decay", f"{_ACTOR}.optim.weight_decay"),
    Parameter("Optimization", "gradient clipping", "1.0", "optimizer.max_grad_norm", f"{_ACTOR}.grad_clip"),
    Parameter("Optimization", "warm-up steps", "10", None, f"{_ACTOR}.optim.lr_warmup_steps"),
    Parameter("Optimization", "rollout batches", None, "num_steps", "trainer.total_training_steps"),
    Parameter(
        "Clipping",
        "clip ratio, low / high",
        "0.2",
        lambda c: f"{lookup(c, 'method.loss.clip_low')} / {lookup(c, 'method.loss.clip_high')}",
        lambda c: f"{lookup(c, f'{_ACTOR}.clip_ratio_low')} / {lookup(c, f'{_ACTOR}.clip_ratio_high')}",
    ),
    Parameter("Clipping", "dual clip", None, "method.loss.dual_clip", f"{_ACTOR}.clip_ratio_c"),
    Parameter("Loss", "aggregation", None, "method.aggregation", f"{_ACTOR}.loss_agg_mode"),
    Parameter(
        "Loss", "entropy coefficient", "0", lambda c: c["method"]["entropy_bonus"] or 0, f"{_ACTOR}.entropy_coeff"
    ),
    Parameter("Loss", "KL term", "0.0", lambda c: "none", f"{_ACTOR}.use_kl_loss"),
    Parameter("Advantages", "type", "GRPO", "method.advantage", "algorithm.adv_estimator"),
    Parameter(
        "Modulation", "alpha", None, "method.shaping.alpha", lambda c: lookup(c, "dynamo.alpha") or "as the method"
    ),
    Parameter("Modulation", "sharpness gamma", None, "method.shaping.sharpness", None),
    Parameter("Modulation", "threshold tau", None, "method.shaping.threshold", None),
    Parameter("Sampling", "temperature", "1.0", lambda c: "1 (exact)", f"{_ROLLOUT}.temperature"),
    Parameter("Sampling", "top-p", "1.0", lambda c: "1 (exact)", f"{_ROLLOUT}.top_p"),
    Parameter("Sampling", "top-k", "-1 (disabled)", None, f"{_ROLLOUT}.top_k"),
    Parameter("Lengths", "largest prompt", "2048", None, "data.max_prompt_length"),
    Parameter("Lengths", "largest response", "8192", None, "data.max_response_length"),
    Parameter("Engine", "backend", "vLLM", None, f"{_ROLLOUT}.name"),
    Parameter("Engine", "tensor parallel size", "2", None, f"{_ROLLOUT}.tensor_model_parallel_size"),
    Parameter("Engine", "GPU memory utilization", "0.8", None, f"{_ROLLOUT}.gpu_memory_utilization"),
    Parameter("Engine", "largest number of sequences", "1024", None, f"{_ROLLOUT}.max_num_seqs"),
    Parameter("Engine", "largest number of batched tokens", "10240", None, f"{_ROLLOUT}.max_num_batched_tokens"),
)
"""Table 3 of arXiv 2602.19208 as far as it says something of a run here, and what it leaves open.

The critic's learning rate and GAE's lambda say nothing without a critic; the actor's learning rate is lost in the
paper's text.
"""


def _value(config: Config, where: str | Callable[[Config], Any] | None) -> str | None:
    if where is None:
        return None
    value = where(config) if callable(where) else lookup(config, where)
    if isinstance(value, (dict, list)):
        raise TypeError(f"a single value, {value!r:.80}")
    return f"{value:g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Configs(Input):
    """Configurations of DynaMO: of every world of the sweep `table1`, and of every model below `scale/`."""

    def read(self, source: Path) -> list[tuple[str, list[str | None]]]:
        """Read them: a name, and a value for each of `PARAMETERS`."""
        folder, command = source / "toy" / "table1", f"python -m toy sweep table1 --out {source / 'toy'}"
        configs: dict[str, list[str | None]] = {}
        for path in sorted(folder.glob(f"*-{METHOD}/config.json")):
            config = read_json(path, {"world_name": (str,)}, command)
            name = f"world {config['world_name']}"
            if name in configs:
                raise unfit(path, f"one run of {METHOD} in a world", "a second one", command)
            configs[name] = _column(path, config, "toy", command)
        for run in find_runs(source):
            if run.axes["method"] == METHOD:
                column = _column(run.folder / "config.json", run.config, "scale", "python -m scale train")
                configs.setdefault(run.axes["model"], column)
        if not configs:
            raise unfit(folder, f"runs of {METHOD} with their config.json", "none", command)
        return list(configs.items())


def _column(path: Path, config: Config, kind: str, command: str) -> list[str | None]:
    try:
        return [_value(config, getattr(parameter, kind)) for parameter in PARAMETERS]
    except (KeyError, TypeError) as error:
        raise unfit(path, "the configuration of a run", f"one without {error}", command) from error


def _fill(configs: Sequence[tuple[str, Sequence[str | None]]]) -> TextTable:
    columns = (Column("parameter"), Column("paper (published)"), *(Column(name) for name, _ in configs))
    groups: dict[str, list[tuple[Value, ...]]] = {}
    for i, parameter in enumerate(PARAMETERS):
        row = (parameter.name, parameter.published, *(values[i] for _, values in configs))
        groups.setdefault(parameter.category, []).append(row)
    return TextTable(columns, tuple((category, tuple(rows)) for category, rows in groups.items()))


def _caption(configs: Sequence[tuple[str, Sequence[str | None]]]) -> str:
    return (
        f"Configuration of DynaMO in {', '.join(name for name, _ in configs)}, from the config.json of a run each (all "
        "its seeds share it; nothing is estimated, so that there is no interval), beside what the paper publishes "
        "(Table 3 of arXiv 2602.19208, copied for reference); a dash: not stated, or without meaning there."
    )


def _reading(configs: Sequence[tuple[str, Sequence[str | None]]]) -> str:
    parts = []
    for name, values in configs:
        stated = [(p, v) for p, v in zip(PARAMETERS, values, strict=True) if p.published and v is not None]
        other = [p.name for p, v in stated if not _same(str(p.published), v)]
        parts.append(f"{name} {', '.join(other) or 'none'}")
    return (
        f"Stated values of the paper that mean something in a run and differ there: {'; '.join(parts)}. A "
        "configuration is no result, and a world is no language model, whatever it shares with the paper."
    )


def _same(published: str, value: str) -> bool:
    """Return whether a value is the published one, or one of those published."""
    said = published.split(" (")[0]
    return any(_plain(x) == _plain(y) for x in said.split(" / ") for y in value.split(" (")[0].split(" / "))


def _plain(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return {"none": 0.0, "False": 0.0}.get(text, text.lower())


TABLE = Table(
    name="table3_configuration",
    title="Table 3: configuration",
    inputs=(Configs(),),
    fill=_fill,
    caption=_caption,
    reading=_reading,
)
