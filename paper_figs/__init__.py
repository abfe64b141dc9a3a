"""Figures of result files: one module per figure, which reads, draws and never trains.

A module with a `FIGURE` (see `paper_figs.figure.Figure`) is a figure; `python -m paper_figs` finds it, reads its inputs
below the source folder and writes it as PDF, SVG and PNG, with the same bytes whenever the data are the same.
"""
