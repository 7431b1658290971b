"""Measures of a trained classifier: one file a suite, all of one shape (:class:`mixskd.evaluation.base.Evaluator`)."""
