"""The record of a run: trials in an Optuna study, the folder that it lies in, and drivers that share one."""
