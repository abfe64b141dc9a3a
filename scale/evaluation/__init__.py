"""pass@k of checkpoints: `python -m scale evaluate`."""
