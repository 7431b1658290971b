"""What a user with ``mypy --strict`` writes. mypy examines it beside the package, as pyproject.toml says."""

import torch

import mixskd

backbone = mixskd.build_backbone("wrn_10_1", 5)
summary = mixskd.train(data="digits", backbone="wrn_10_1", method={"name": "mixup"}, out="run", run={"epochs": 1})
classifier = mixskd.load(str(summary["out"]))
logits = classifier(torch.zeros(1, 3, 8, 8))
names: tuple[str, ...] = classifier.classes
mixskd.report(["run"], "report.html")
