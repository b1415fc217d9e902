"""What must hold when processes die, stall and stop: scenarios by their numbers (RELIABILITY 2)."""
