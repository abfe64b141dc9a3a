"""Composed configurations, shared by the tests."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

QWEN = {"qwen2.5-math-1.5b": "1x8-a100", "qwen2.5-math-7b": "1x8-a100", "qwen3-14b": "2x8-a100"}
"""Models, and the cluster that each is for."""


@pytest.fixture
def launch():
    return pytest.importorskip("scale.launch")


def prompts(path, keys, **more):
    rows = [{"extra_info": {"index": i, "key": key}, **more} for i, key in enumerate(keys)]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def compose(launch, out, *overrides, model="tiny", cluster="cpu"):
    folder = out / "tiny"
    if not folder.exists():
        folder.mkdir(parents=True)
        prompts(folder / "train.parquet", [f"k{i}" for i in range(40)])
        prompts(folder / "val.parquet", ["h1", "h2"])
    return launch.compose(model, cluster, out=out / "run", overrides=[f"tiny_folder={folder}", *overrides])


def model_config(shape, **changes):
    """Return Transformers' configuration of a shape."""
    import transformers

    kind = transformers.Qwen3Config if shape.qk_norm else transformers.Qwen2Config
    fields = {
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "max_position_embeddings": shape.positions,
        "tie_word_embeddings": shape.tied,
    }
    return kind(**(fields | changes))
