"""The studies that are shipped: one YAML a question."""
