"""What web answers: JSON, and an error for each failure."""
