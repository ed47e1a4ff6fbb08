"""The command `vitriton`.

Each subcommand imports its modules only when it runs, as torch and transformers take seconds.
"""

import argparse
import logging
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from deploy.local.errors import LocalError
from exporter.errors import ExportError, NeedsOptions
from gateway import __version__
from gateway.settings import InvalidSettings

if TYPE_CHECKING:
    from exporter.export import ExportRequest

_REPOSITORY: Final = Path("model_repository")
_INTERRUPTED: Final = 130
_MAX_PORT: Final = 65535

_EXPORT_ONLY_OPTIONS: Final = {
    *("--name", "--output", "--replace", "--revision", "--init", "--allow-pickle"),
    *("--max-batch-size", "--instances", "--batch-delay-us"),
}
_EXPORT_HINT: Final = "; export the model with `vitriton export` first, then serve its id"

_EXPORT_EXAMPLES: Final = """examples:
  vitriton export google/vit-base-patch16-224
  vitriton export ./my-finetune --name me/cats-and-dogs
  vitriton export vit-tiny --init random --name test/vit-tiny
  vitriton export ./my-finetune --check model_repository/me--cats-and-dogs
"""
_SERVE_EXAMPLES: Final = """examples:
  vitriton serve                                  the hub's ViT if it answers, and the demo
  vitriton serve vitriton/vit-digits --port 9000
  vitriton serve ./my-finetune facebook/deit-base-distilled-patch16-224
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run one subcommand; exit code 1 for a failure, 2 for wrong usage."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["gateway"]:
        # `gateway` and `token` have parsers of their own: they also run where only the gateway's
        # packages are installed.
        from gateway.server import main as run_gateway

        run_gateway(arguments[1:])
        return
    if arguments[:1] == ["token"]:
        from gateway.auth.command import main as run_token
        from gateway.settings import configured_tokens_file

        run_token(arguments[1:], configured_tokens_file())
        return
    options = _parse(arguments)
    logging.basicConfig(level=logging.WARNING, format="vitriton: %(message)s")
    for name in ("vitriton", "exporter"):
        logging.getLogger(name).setLevel(logging.INFO)
    try:
        options.run(options)
    except (LocalError, ExportError) as exc:
        print(f"vitriton: error: {exc}{_suggested_commands(exc, options)}", file=sys.stderr)
        raise SystemExit(1) from exc
    except InvalidSettings as exc:
        print(f"vitriton: error: {exc}", file=sys.stderr)
        raise SystemExit(2) from exc
    except OSError as exc:
        # The user can fix an error about a path. An error without a path is a bug of Vitriton.
        if exc.filename is None:
            raise
        print(f"vitriton: error: {exc.filename}: {exc.strerror}", file=sys.stderr)
        raise SystemExit(1) from exc
    except KeyboardInterrupt as exc:
        print("vitriton: interrupted", file=sys.stderr)
        raise SystemExit(_INTERRUPTED) from exc


def _suggested_commands(exc: Exception, options: argparse.Namespace) -> str:
    """The commands that would work, for an error that names the options they need."""
    if not isinstance(exc, NeedsOptions):
        return ""
    from deploy.local.invocation import export_then_serve

    repository = getattr(options, "output", _REPOSITORY)
    return f": {export_then_serve(exc.source, exc.model_id, exc.options, repository)}"


def _parse(arguments: list[str]) -> argparse.Namespace:
    """Parse the command line; `serve` gets a hint for an option that only `export` has."""
    parser = _parser()
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        names = {argument.partition("=")[0] for argument in unknown}
        hint = _EXPORT_HINT if options.run is _serve and names & _EXPORT_ONLY_OPTIONS else ""
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vitriton",
        description="The Hugging Face image-classification API on your own hardware.",
    )
    parser.add_argument("--version", action="version", version=f"vitriton {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    commands.add_parser("gateway", help="run the HTTP service alone; settings from GATEWAY_*")
    commands.add_parser("token", help="make, list and revoke tokens of the HTTP service")
    _add_serve(commands)
    _add_export(commands)
    _add_doctor(commands)
    return parser


def _add_serve(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    serve = commands.add_parser(
        "serve",
        help="start Triton and the gateway on this machine",
        description="Export what is missing, start Triton and the gateway, stop both on Ctrl-C.",
        epilog=_SERVE_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_serve_arguments(serve)
    serve.set_defaults(run=_serve)


def _add_serve_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `serve` and of `doctor`, which examines what `serve` would do."""
    parser.add_argument(
        "models",
        nargs="*",
        metavar="MODEL",
        help="hub id, id in the model repository, or checkpoint folder",
    )
    parser.add_argument(
        "--port",
        type=_port,
        help="HTTP port, 0 for a free one (default: 8080)",
    )
    parser.add_argument(
        "--repository",
        type=Path,
        default=_REPOSITORY,
        metavar="DIR",
        help="model repository (default: %(default)s)",
    )
    parser.add_argument(
        "--profile",
        default="auto",
        metavar="NAME",
        help="how Triton serves the models: cpu, gpu, gpu-jpeg, or another file in their configs/"
        " folders (default: %(default)s, the best that this machine has)",
    )
    _add_precision(parser)


def _add_export(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    export = commands.add_parser(
        "export",
        help="write a transformers model into a model repository",
        description="Trace a transformers image classifier to TorchScript, verify it against the"
        " original, and write it into a Triton model repository.",
        epilog=_EXPORT_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    export.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help="hub id or checkpoint folder; with --init random also vit-base, vit-tiny,"
        " deit-base-distilled or deit-tiny-distilled",
    )
    export.add_argument("--name", metavar="ORG/NAME", help="model id to serve it under")
    export.add_argument(
        "--output",
        type=Path,
        default=_REPOSITORY,
        metavar="DIR",
        help="model repository (default: %(default)s)",
    )
    export.add_argument(
        "--check",
        type=Path,
        metavar="MODEL_DIR",
        help="write nothing; verify this entry of a repository again, against MODEL",
    )
    export.add_argument("--replace", action="store_true", help="drop the model's older versions")
    _add_checkpoint(export.add_argument_group("checkpoint"))
    _add_serving(export.add_argument_group("serving"))
    export.set_defaults(run=_export)


def _add_checkpoint(source: "argparse._ArgumentGroup") -> None:
    source.add_argument("--revision", help="branch, tag or commit on the hub")
    source.add_argument(
        "--init",
        choices=["random"],
        help="take the architecture alone, with seeded random weights",
    )
    source.add_argument(
        "--allow-pickle",
        action="store_true",
        help="also load pytorch_model.bin; only from a source you trust",
    )


def _add_serving(serving: "argparse._ArgumentGroup") -> None:
    _add_precision(serving)
    serving.add_argument(
        "--max-batch-size",
        type=int,
        metavar="N",
        help="most images in one batch (default: 32, and 8 where a CPU serves)",
    )
    serving.add_argument(
        "--instances",
        type=int,
        metavar="N",
        help="instances on each device (default: 2 on a GPU, 1 on a CPU)",
    )
    serving.add_argument(
        "--batch-delay-us",
        type=int,
        default=0,
        metavar="N",
        help="microseconds that a batch waits for more images (default: %(default)s)",
    )


def _add_doctor(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    doctor = commands.add_parser(
        "doctor",
        help="say what is wrong with this machine or a model repository",
        description="Examine everything that `vitriton serve` would need with the same arguments,"
        " and the model repository. Nothing is written; exit code 1 if something is wrong.",
    )
    _add_serve_arguments(doctor)
    doctor.set_defaults(run=_doctor)


def _add_precision(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--precision",
        choices=["auto", "fp32", "bf16", "fp16"],
        default="auto",
        help="what the graph computes in; auto is fp16 on a GPU and fp32 on a CPU",
    )


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > _MAX_PORT:
        raise argparse.ArgumentTypeError(f"{text} is no port: 0 to {_MAX_PORT}")
    return int(text)


def _serve(options: argparse.Namespace) -> None:
    # gRPC reads this when it is imported. It installs handlers for forks, which write a warning at
    # each one; this process forks only to start other programs, which is safe.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
    from deploy.local.model_selection import ExportFailed
    from deploy.local.serve import ServeRequest, serve

    request = ServeRequest(
        options.models, options.repository, options.precision, options.port, options.profile
    )
    try:
        serve(request)
    except ExportFailed as exc:
        # The export has already written the error.
        raise SystemExit(1) from exc


def _export(options: argparse.Namespace) -> None:
    # An export that gets SIGTERM removes its unfinished files, as on Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if options.check is not None:
        from exporter.check import check_entry

        check_entry(options.check, options.model, options.allow_pickle)
        return
    if options.model is None:
        raise ExportError("name the MODEL to export; `vitriton export --help` has examples")

    from deploy.local.demo_folder import DEMO_MODEL
    from deploy.local.invocation import vitriton_command
    from exporter.export import export_model

    source, name = options.model, options.name
    if source == DEMO_MODEL and not options.init:
        source, name = _trained_demo(options.output), name or DEMO_MODEL
    spec = export_model(_export_request(options, source, name))
    repository = shlex.quote(str(options.output))
    print(f"{vitriton_command()} serve {spec.model_id} --repository {repository}")


def _trained_demo(repository: Path) -> str:
    """Checkpoint folder of the demo, trained now unless it was trained before."""
    from deploy.local.demo import prepare_demo
    from deploy.local.demo_folder import DEMO_FOLDER
    from exporter.repository import refuse_unwritable

    # The export checks this too, but only after the training.
    refuse_unwritable(repository)
    return str(prepare_demo(DEMO_FOLDER))


def _export_request(options: argparse.Namespace, source: str, name: str | None) -> "ExportRequest":
    from exporter.config_pbtxt import ServingOptions
    from exporter.export import ExportRequest

    return ExportRequest(
        source=source,
        repository=options.output,
        name=name,
        revision=options.revision,
        random_weights=options.init == "random",
        allow_pickle=options.allow_pickle,
        precision=options.precision,
        options=ServingOptions(options.max_batch_size, options.instances, options.batch_delay_us),
        replaces=options.replace,
    )


def _doctor(options: argparse.Namespace) -> None:
    from deploy.local.doctor import examine

    problems = 0
    findings = examine(
        options.models, options.repository, options.precision, options.port, options.profile
    )
    for finding in findings:
        problems += finding.problem is not None
        mark = "ok   " if finding.problem is None else "WRONG"
        print(f"{mark} {finding.subject}: {finding.problem or finding.detail}", flush=True)
    if problems:
        raise LocalError(f"{problems} of these {'is' if problems == 1 else 'are'} wrong")


if __name__ == "__main__":
    main()
