"""What one trial does: one module for each kind of study."""
