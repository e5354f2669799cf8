"""The command line: mnist37.

Exit status: 0 done; 1 a fault of the server; 2 a value or a file that is not right; 3 no answer
(nobody listens there, it is shutting down, full or too slow): try again later; 4 the state does
not allow it (a request_id used otherwise, a run that cannot go on, a version that is not kept); 5
no access (a token is missing, unknown or not enough; the server's certificate is not trusted).
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import secrets
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mnist37_client.cli.options import (
    json_option,
    print_json,
    print_version,
    reaches_server,
    request_id_option,
    talks_to_server,
)

if TYPE_CHECKING:
    from mnist37_client._rpc.calls import Split
    from mnist37_client.client import Client


@click.group(
    context_settings={"show_default": True, "help_option_names": ["-h", "--help"]},
    epilog="Begin with `mnist37 demo`; or start `mnist37 serve` in one terminal and give"
    " `mnist37 train 20` in another.",
)
@click.version_option(package_name="mnist37")
def commands() -> None:
    """Train one live model and ask it, at the same time: is this handwritten digit a 3 or a 7?"""


@commands.command(
    add_help_option=False, context_settings={"ignore_unknown_options": True}, options_metavar=""
)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def serve(options: tuple[str, ...]) -> None:
    """Start a server; `mnist37 serve --help` lists its options."""
    # The server is another package, with torch: it is run, not imported.
    os.execv(sys.executable, [sys.executable, "-m", "mnist37_server", *options])


@commands.command()
@click.argument("epochs", type=int)
@click.option("--learning-rate", type=float, metavar="RATE", help="[default: 1.0]")
@click.option("--batch-size", type=int, metavar="N", help="Images a step.  [default: 256]")
@click.option("--seed", type=int, metavar="N", help="Of the shuffling.  [default: 42]")
@request_id_option
@json_option
@talks_to_server
def train(
    client: Client,
    epochs: int,
    learning_rate: float | None,
    batch_size: int | None,
    seed: int | None,
    request_id: str | None,
    as_json: bool,
) -> None:
    """Train for EPOCHS epochs and show how it goes.

    Ctrl-C stops the run; the model keeps what it learnt. With a --request-id, the same command
    goes on where it stopped.
    """
    from rich.console import Console

    from mnist37_client.cli.terminal import follow, loss_curve

    run = client.train(
        epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        seed=seed,
        request_id=request_id,
    )
    if as_json:
        for progress in run:
            print_json(**dataclasses.asdict(progress))
        return
    console = Console()
    seen = follow(run, epochs, console)
    if len(seen) > 1:
        console.print()
        console.print(loss_curve(seen, console.width), highlight=False, markup=False)
    click.echo(f"validation accuracy {seen[-1].valid_accuracy:.4f}, version {seen[-1].version}")


@commands.command()
@click.option("--learning-rate", type=float, metavar="RATE", help="[default: 1.0]")
@request_id_option
@json_option
@talks_to_server
def step(
    client: Client, learning_rate: float | None, request_id: str | None, as_json: bool
) -> None:
    """Do one step of SGD on the training set's next 256 images."""
    done = client.step(learning_rate=learning_rate, request_id=request_id)
    if as_json:
        print_json(**dataclasses.asdict(done))
    else:
        click.echo(f"loss {done.loss:.6f} before the step, version {done.version} after it")


@commands.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE…")
@click.option("--show", is_flag=True, help="Draw each digit as the model sees it.")
@json_option
@talks_to_server
def predict(client: Client, files: tuple[Path, ...], show: bool, as_json: bool) -> None:
    """Say of each FILE, a PNG or JPEG of a handwritten digit, whether it is a 3 or a 7.

    Dark on light or light on dark, of any size: each is prepared as MNIST's images were.
    """
    import numpy as np

    from mnist37_client.cli.terminal import picture
    from mnist37_client.digits import read_digit

    images = np.stack([read_digit(path) for path in files])
    prediction = client.predict(images)
    for path, image, digit, three in zip(
        files, images, prediction.digits.tolist(), prediction.probabilities.tolist(), strict=True
    ):
        probability = three if digit == 3 else 1 - three
        if as_json:
            print_json(
                file=str(path), digit=digit, probability=probability, version=prediction.version
            )
            continue
        if show:
            click.echo("\n".join(picture(image)))
        click.echo(f"{path}: {digit} ({probability:.1%})")


@commands.command()
@click.option("--split", type=click.Choice(["train", "valid"]), help="Only this one.")
@json_option
@talks_to_server
def loss(client: Client, split: Split | None, as_json: bool) -> None:
    """Show the loss and the accuracy on the training and the validation images."""
    from mnist37_client._rpc.calls import SPLITS

    for name in (split,) if split else SPLITS:
        found = client.get_loss(name)
        if as_json:
            print_json(split=name, **dataclasses.asdict(found))
        else:
            click.echo(
                f"{name}: loss {found.loss:.6f}, accuracy {found.accuracy:.4f} on"
                f" {found.count:,} images, version {found.version}"
            )


@commands.command()
@click.option("--seed", type=int, metavar="N", help="Of the draw.  [default: 42]")
@click.option("--std", type=float, metavar="STD", help="Standard deviation.  [default: 1.0]")
@request_id_option
@json_option
@talks_to_server
def init(
    client: Client,
    seed: int | None,
    std: float | None,
    request_id: str | None,
    as_json: bool,
) -> None:
    """Replace the parameters by fresh random ones."""
    print_version(client.initialize(seed=seed, std=std, request_id=request_id), as_json)


@commands.command()
@json_option
@talks_to_server
def model(client: Client, as_json: bool) -> None:
    """Show the model: its version, its digest and where it lives; with --json its weights too."""
    found = client.get_model()
    if as_json:
        print_json(
            version=found.version,
            digest=found.digest,
            device=found.device,
            bias=float(found.bias),
            weights=found.weights.tolist(),
        )
    else:
        click.echo(f"version {found.version} on {found.device}, digest {found.digest}")


@commands.command()
@click.option("--limit", type=int, default=20, metavar="N", help="How many, newest first.")
@json_option
@talks_to_server
def versions(client: Client, limit: int, as_json: bool) -> None:
    """List the versions of the model that are kept."""
    from mnist37_client.cli.terminal import local_time

    for found in client.versions(limit):
        if as_json:
            print_json(**dataclasses.asdict(found))
        else:
            by = f"run {found.run}" if found.run else found.origin
            click.echo(f"{found.version:>10}  {local_time(found.committed)}  {by}")


@commands.command()
@reaches_server
def health(
    address: str,
    tls_ca: str | None,
    tls_cert: str | None,
    tls_key: str | None,
    tls_server_name: str | None,
) -> None:
    """Ask once whether the server is serving: the exit status is 0 then, and 3 otherwise.

    The answer names the device on which the model is.
    """
    from mnist37_client.health import check

    device = check(
        address,
        tls_ca=tls_ca,
        tls_cert=tls_cert,
        tls_key=tls_key,
        tls_server_name=tls_server_name,
    )
    click.echo("serving" if device is None else f"serving, the model is on {device}")


@commands.command()
@click.argument("version", type=int)
@request_id_option
@json_option
@talks_to_server
def restore(client: Client, version: int, request_id: str | None, as_json: bool) -> None:
    """Make a kept VERSION's parameters the model's again, as a new version."""
    print_version(client.restore(version, request_id=request_id), as_json)


@commands.command()
@click.argument("run", type=int, required=False)
@click.option("--follow", is_flag=True, help="Watch the run go on, until it ends.")
@json_option
@talks_to_server
def runs(client: Client, run: int | None, follow: bool, as_json: bool) -> None:
    """List the training runs; or show RUN: its settings, its loss curve, and how it goes on.

    With --follow and no RUN it is the newest.
    """
    from rich.console import Console

    from mnist37_client.cli.terminal import show_run, summary

    if run is not None or follow:
        said = client.watch_run(run, follow=follow)
        if not as_json:
            show_run(said, follow, Console())
            return
        for thing in said:
            print_json(**dataclasses.asdict(thing))
        return
    for found in client.runs():
        if as_json:
            print_json(**dataclasses.asdict(found))
        else:
            click.echo(summary(found))


@commands.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--version", type=int, metavar="N", help="This kept version.  [default: the newest]")
@talks_to_server
def export(client: Client, file: Path, version: int | None) -> None:
    """Write the parameters to FILE, a .safetensors that torch.nn.Linear(784, 1) can load."""
    from mnist37_client.cli.safetensors_file import save_model

    found = client.get_model(version=version)
    save_model(found, file)
    click.echo(f"version {found.version}, digest {found.digest}")


@commands.command(name="import")
@click.argument("file", type=click.Path(path_type=Path))
@request_id_option
@json_option
@talks_to_server
def import_(client: Client, file: Path, request_id: str | None, as_json: bool) -> None:
    """Make the parameters in FILE, a .safetensors, the model's, as a new version."""
    from mnist37_client.cli.safetensors_file import load_model

    print_version(client.import_model(*load_model(file), request_id=request_id), as_json)


@commands.command()
@click.argument("role", type=click.Choice(["predict", "train"]))
@click.option("--name", default="", metavar="NAME", help="Whose it is: a comment in the line.")
@json_option
def token(role: str, name: str, as_json: bool) -> None:
    """Make a token for ROLE, and its line for the file that `mnist37 serve --tokens` reads.

    The line has the token's hash alone: nobody can be the caller who reads the file. The token
    itself is shown here once, and kept nowhere.
    """
    secret = secrets.token_urlsafe(32)
    comment = " ".join(["", *name.split()])
    line = f"{role} {hashlib.sha256(secret.encode()).hexdigest()}" + (comment and f"  #{comment}")
    if as_json:
        print_json(token=secret, line=line)
    else:
        click.echo(f"token, for the caller:      {secret}")
        click.echo(f"line, for the server's file: {line}")


@commands.command()
def demo() -> None:
    """Start a server, train 20 epochs, and recognise digits: the whole service in a minute."""
    from rich.console import Console

    from mnist37_client.cli import demo as demonstration

    demonstration.run(Console())


def main() -> None:
    """Runs a command; an error is one line on stderr and a status that says what kind it is."""
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `mnist37 ... | head` ends in silence
    try:
        commands(prog_name="mnist37", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        click.echo(f"mnist37: {error.format_message()}", err=True)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except Exception as error:
        from mnist37_client.errors import Mnist37Error

        if not isinstance(error, Mnist37Error):
            raise
        click.echo(f"mnist37: {error}", err=True)
        sys.exit(_exit_status(error))


def _exit_status(error: Exception) -> int:
    from mnist37_client import errors

    if isinstance(error, errors.InvalidInput):
        return 2
    if isinstance(error, errors.Unavailable | errors.DeadlineExceeded | errors.Exhausted):
        return 3
    if isinstance(error, errors.AlreadyExists | errors.Aborted | errors.NotFound):
        return 4
    if isinstance(error, errors.Unauthenticated | errors.PermissionDenied):
        return 5
    return 1
