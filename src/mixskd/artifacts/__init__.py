"""The files of finished runs: model, summary and results of suites. All are checked when they are read."""
