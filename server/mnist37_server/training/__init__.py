"""What a write does to the parameters, and the device on which it is done."""
