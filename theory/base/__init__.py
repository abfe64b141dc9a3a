"""What every chapter stands on: array types, checks of arguments, and the folder of a run."""
