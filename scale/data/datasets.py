"""Where problems come from: the known data sets, and their files here or on the hub."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from scale.data.formats import SUFFIXES


@dataclass(frozen=True)
class Dataset:
    """A data set.

    Attributes
    ----------
    name : Our name of it: its `data_source`, and the name of its file.
    split : `train` or `test`.
    repository, files : Its repository on the hub, and patterns of its files there.
    rows : Numbers of rows that files of it are known to have, and what such a file is.
    problems, others : Number of different problems (texts), and what another known number would be.
    """

    name: str
    split: str
    repository: str
    files: tuple[str, ...]
    rows: Mapping[int, str]
    problems: int
    others: Mapping[int, str] = field(default_factory=dict)


_DAPO = {1_791_700: "the hub's file, 17,917 rows x 100", 17_917: "each row once", 17_398: "each problem once"}

DATASETS: Mapping[str, Dataset] = {
    x.name: x
    for x in (
        Dataset("aime24", "test", "HuggingFaceH4/aime_2024", ("data/train*",), {30: "AIME 2024", 960: "30 x 32"}, 30),
        Dataset("aime25", "test", "math-ai/aime25", ("*test*",), {30: "AIME 2025"}, 30),
        Dataset(
            "amc23", "test", "math-ai/amc23", ("*test*",), {40: "AMC 2023"}, 40, {83: "AMC 2022 and 2023 together"}
        ),
        Dataset("math500", "test", "HuggingFaceH4/MATH-500", ("test*",), {500: "MATH-500"}, 500),
        Dataset("minerva", "test", "math-ai/minervamath", ("*test*",), {272: "Minerva"}, 272),
        Dataset(
            "olympiadbench",
            "test",
            "Hothan/OlympiadBench",
            ("*OE_TO_maths_en_COMP*",),
            {674: "open-ended, text only, English, competition"},
            674,
            {675: "the file of Qwen2.5-Math's evaluation"},
        ),
        Dataset(
            "dapo-math-17k",
            "train",
            "BytedTsinghua-SIA/DAPO-Math-17k",
            ("data/*.parquet",),
            _DAPO,
            17_398,
        ),
    )
}
"""Known data sets by name, what is trained on last."""


def find_files(dataset: Dataset, source: Path | None, revision: str | None = None) -> tuple[list[Path], dict[str, Any]]:
    """Return the files of a data set and what they are, downloading them if no source is given.

    Parameters
    ----------
    source : A file, or a folder that holds a file `NAME.*` or a folder `NAME/` for the data set, such as a copy of its
        repository. None downloads from the hub.
    revision : Branch, tag or commit of the hub's repository.
    """
    if source is None:
        folder = _download(dataset, revision)
        files = [path for path in _data_files(folder, "**/*") if _matches(dataset, path.relative_to(folder))]
        where: dict[str, Any] = {"repository": dataset.repository, "commit": folder.name}
        if not files:
            raise ValueError(
                f"{dataset.name}: expected files {' or '.join(dataset.files)} in {dataset.repository}, got none; "
                "download its files yourself and give --source"
            )
        return files, where
    if not source.exists():
        raise ValueError(f"{source}: expected a file or folder with {dataset.name}, got none")
    if source.is_file():
        if source.suffix not in SUFFIXES:
            raise ValueError(f"{source}: expected a file of type {', '.join(SUFFIXES)}, got {source.suffix!r}")
        return [source], {}
    files = sorted(path for suffix in SUFFIXES if (path := source / f"{dataset.name}{suffix}").is_file())
    if not files:
        folder = source / dataset.name
        every = _data_files(folder, "**/*")
        files = [path for path in every if _matches(dataset, path.relative_to(folder))] or every
    if not files:
        raise ValueError(
            f"{source}: expected {dataset.name}.parquet, .jsonl, .json or .csv, or a folder {dataset.name} of such "
            "files, got none"
        )
    if len({path.suffix for path in files}) > 1 or (files[0].parent == source and len(files) > 1):
        raise ValueError(
            f"{source}: expected one file for {dataset.name}, or files of one type, got "
            f"{', '.join(path.name for path in files)}"
        )
    return files, {}


def _data_files(folder: Path, pattern: str) -> list[Path]:
    return sorted(path for path in folder.glob(pattern) if path.suffix in SUFFIXES and path.is_file())


def _matches(dataset: Dataset, path: Path) -> bool:
    return any(fnmatch(path.as_posix(), pattern) for pattern in dataset.files)


def _download(dataset: Dataset, revision: str | None) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ValueError(
            f"{dataset.name}: expected --source FILE_OR_DIR, or the package huggingface_hub to download "
            f"{dataset.repository}, got neither: {error}"
        ) from error
    try:
        folder = snapshot_download(
            dataset.repository, repo_type="dataset", revision=revision, allow_patterns=list(dataset.files)
        )
    except Exception as error:  # of many kinds: no network, no such repository, no such revision, a broken download
        raise ValueError(
            f"{dataset.name}: expected to download {dataset.repository} from the hub, got {type(error).__name__}: "
            f"{str(error).strip().splitlines()[0][:200]}; without a network, download its files elsewhere and give "
            "--source FILE_OR_DIR"
        ) from error
    return Path(folder)
