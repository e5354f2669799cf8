"""Train the live model until the validation loss stops improving, and print the progress.

python examples/train.py [HOST:PORT]
"""

import sys

from mnist37_client import Client


def main(address: str) -> None:
    """Train 5 epochs at a time, as long as that lowers the validation loss by 1 % or more."""
    with Client(address) as client:
        best = client.get_loss("valid").loss
        while True:
            for progress in client.train(epochs=5, learning_rate=2.0):
                print(f"version {progress.version}: accuracy {progress.valid_accuracy:.4f}")
            if progress.valid_loss > 0.99 * best:
                break
            best = progress.valid_loss
        model = client.get_model()
        print(f"done: version {model.version}, digest {model.digest}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:50051")
