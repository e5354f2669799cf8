"""The server's own tests of the Open Inference Protocol, with a front before each server."""

from __future__ import annotations

from integration.test_open_inference import *  # noqa: F403

# A run this short is over before a second version of it has come to the front.
del test_predictions_are_of_the_live_model_during_a_run  # noqa: F821
