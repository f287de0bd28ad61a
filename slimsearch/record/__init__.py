"""The record of a run: trials in an Optuna study, the run directory, and studies shared by several drivers."""
