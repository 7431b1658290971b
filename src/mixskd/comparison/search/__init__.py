"""The search for a method and its settings: Optuna proposes trials, and the runs of a comparison carry them out."""
