"""The story of a study: define, plan, run, record, read back."""
