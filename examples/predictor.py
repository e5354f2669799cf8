"""A service that predicts with the live model continuously, and reports every few seconds.

python examples/predictor.py [HOST:PORT [INTERVAL [REPLICAS]]]

INTERVAL: seconds between two reports; REPLICAS: the followers that answer, dns:///NAME:PORT
"""

import random
import sys
import time

from mnist37_client import Client, validation_images

IMAGES = 10  # in one call
PAUSE_SECONDS = 0.1  # between two calls


def main(address: str = "127.0.0.1:50051", interval: str = "10", replicas: str = "") -> None:
    """Predict until the process ends; the client retries while the servers restart."""
    images, labels = validation_images()
    with Client(address, replicas=replicas or None) as client:
        while True:
            total, correct, slowest_ms = 0, 0, 0.0
            report_at = time.monotonic() + float(interval)
            while total == 0 or time.monotonic() < report_at:
                indices = random.sample(range(len(images)), IMAGES)
                start = time.monotonic()
                prediction = client.predict(images[indices])
                slowest_ms = max(slowest_ms, 1000 * (time.monotonic() - start))
                correct += sum((prediction.digits == 3) == (labels[indices] == 1))
                total += IMAGES
                time.sleep(PAUSE_SECONDS)
            report = f"{correct} of {total} right, slowest answer {slowest_ms:.1f} ms"
            print(f"version {prediction.version}: {report}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
