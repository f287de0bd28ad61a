"""Spaces from plain PyTorch: functions ``define(trial)``, and functions of choices."""
