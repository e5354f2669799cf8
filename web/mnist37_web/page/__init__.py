"""The page on which the model learns."""
