"""Scores archives of twelve-lead ECG recordings with a parallel xLSTM, in the background."""
