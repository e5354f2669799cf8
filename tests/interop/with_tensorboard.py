"""TensorBoard's own reader of event files prints what a folder has, as JSON."""

import json
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

accumulator = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0, "images": 0}).Reload()
tags = accumulator.Tags()
print(
    json.dumps(
        {
            "scalars": {
                tag: [(event.step, event.value) for event in accumulator.Scalars(tag)]
                for tag in tags["scalars"]
            },
            "images": {
                tag: [(event.step, event.width, event.height) for event in accumulator.Images(tag)]
                for tag in tags["images"]
            },
            "tensors": tags["tensors"],
        }
    )
)
