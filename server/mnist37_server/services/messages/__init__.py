"""The messages of Mnist37Service: their decoding, their checks and their encoding."""
