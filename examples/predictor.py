"""A service that asks the live model on and on, and says every few seconds how it did.

python examples/predictor.py [HOST:PORT [EVERY]]     EVERY: seconds between two lines
"""

import random
import sys
import time

from mnist37_client import Client, validation_images

IMAGES = 10  # in a question
PAUSE = 0.1  # seconds between two questions


def main(address: str = "127.0.0.1:50051", every: str = "10") -> None:
    """Asks for ever. The client lives through restarts of the server by itself."""
    images, labels = validation_images()
    with Client(address) as client:
        while True:
            asked, right, slowest = 0, 0, 0.0
            until = time.monotonic() + float(every)
            while asked == 0 or time.monotonic() < until:
                chosen = random.sample(range(len(images)), IMAGES)
                began = time.monotonic()
                answer = client.predict(images[chosen])
                slowest = max(slowest, 1000 * (time.monotonic() - began))
                right += sum((answer.digits == 3) == (labels[chosen] == 1))
                asked += IMAGES
                time.sleep(PAUSE)
            told = f"{right} of {asked} right, slowest answer {slowest:.1f} ms"
            print(f"version {answer.version}: {told}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
