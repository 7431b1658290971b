"""Measurements of a trained classifier: one file a suite (see :class:`mixskd.evaluation.base.Evaluator`)."""
