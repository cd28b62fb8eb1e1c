"""Experiment trackers: the numbers of a run in TensorBoard, W&B, MLflow, Trackio or SwanLab.

A room of its own, so that one protocol stands between training and the packages of others: each
adapter is a small file that imports its package when a run asks for it.
"""
