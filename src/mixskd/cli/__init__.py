"""The command line: one file a verb. torch is imported only when a verb needs it."""
