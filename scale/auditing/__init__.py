"""What any run's rollouts say: `python -m scale audit`."""
