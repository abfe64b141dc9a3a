"""An episode in a world as text, or as a picture: what the environments of `toy.envs` show.

A picture has a row of squares for each token, and in it a square for each answer. Blue answers are correct, orange ones
wrong, and the answers of a filler are grey. The brighter a square, the likelier the answer before training. A white
frame marks the answer taken. Rows below the prompt's last token are black.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from toy.worlds.tabular import World

Frame = str | NDArray[np.uint8]
"""Text, or a picture [height, width, 3]."""

SQUARE = 16
"""Pixels of a side of a square."""

CORRECT, WRONG, FILLER = ((0, 114, 178), (213, 94, 0), (128, 128, 128))
"""Colours of the likeliest answer of a row, as red, green and blue."""


def answers_text(world: World, prompt: int, tokens: Sequence[int]) -> str:
    """Show the three likeliest answers to a prompt of one token, and the answer given."""
    row = world.rows[prompt, 0]
    correct, logits = world.correct[row], world.logits[row]
    probs = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    top = np.argsort(-probs, kind="stable")[:3]
    answers = "  ".join(f"{a}{'*' if correct[a] else ''} {probs[a]:.3f}" for a in top)
    return f"answers {answers}" + "".join(f"  -> {a}" for a in tokens)


def skills_text(world: World, prompt: int, tokens: Sequence[int]) -> str:
    """Show the skills that a prompt needs, and the tokens given."""
    rows = world.rows[prompt, : world.lengths[prompt]]
    skills = [str(row) if world.decisions[row] else f"({row})" for row in rows]
    for t, action in enumerate(tokens):
        mark = ("+" if world.correct[rows[t], action] else "-") if world.decisions[rows[t]] else ""
        skills[t] += f"={action}{mark}"
    return " ".join(skills)


def _text(world: World, prompt: int, tokens: Sequence[int], describe: Callable[..., str]) -> str:
    text = f"{world.keys[prompt]}  p = {world.success_probability()[prompt]:.3f}  {describe(world, prompt, tokens)}"
    if len(tokens) == world.lengths[prompt]:
        text += f" {'correct' if world.correct[world.rows[prompt, : len(tokens)], tokens].all() else 'wrong'}"
    return text + "\n"


def _picture(world: World, prompt: int, tokens: Sequence[int]) -> NDArray[np.uint8]:
    """Return a picture of an episode, [SQUARE T, SQUARE K, 3]; the module says what it shows."""
    rows = world.rows[prompt, : world.lengths[prompt]]
    logits = world.logits[rows]
    likely = np.exp(logits - logits.max(-1, keepdims=True))[..., None]
    colours = np.where(world.correct[rows][..., None], CORRECT, WRONG)
    colours[~world.decisions[rows]] = FILLER
    squares = np.zeros((world.max_length, world.num_answers, 3), dtype=np.uint8)
    squares[: len(rows)] = colours * (0.25 + 0.75 * likely)
    picture = squares.repeat(SQUARE, axis=0).repeat(SQUARE, axis=1)
    for t, action in enumerate(tokens):
        square = picture[SQUARE * t : SQUARE * (t + 1), SQUARE * action : SQUARE * (action + 1)]
        square[:] = 255
        square[2:-2, 2:-2] = squares[t, action]
    return picture


def frame(mode: str, world: World, prompt: int, tokens: Sequence[int], describe: Callable[..., str]) -> Frame:
    """Return an episode so far, as text or as a picture."""
    return _text(world, prompt, tokens, describe) if mode == "ansi" else _picture(world, prompt, tokens)
