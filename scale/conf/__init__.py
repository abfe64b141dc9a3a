"""Hydra configuration of runs: verl's own, then a cluster, a model and what every run shares."""
