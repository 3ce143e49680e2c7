"""``ftnas launch``. Torch and NNI are imported inside the command only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from ftnas.cli.experimenting import print_experiment
from ftnas.cli.mistakes import one_line_errors
from ftnas.cli.options import ExperimentFolder, TrainingDataDirectory
from ftnas.cli.output import Json
from ftnas.errors import ConfigError, LaunchError

DEFAULT_PORT = 8080

Config = Annotated[Path, Argument(help="The experiment, a YAML file as for `ftnas experiment`.")]
Service = Annotated[
    str | None, Option("--service", help="Where trials run: local, or another of NNI's, described in --service-config.")
]
ServiceConfig = Annotated[
    Path | None, Option("--service-config", help="A YAML file: NNI's keys of the service, and where its machines look.")
]
Concurrency = Annotated[
    int | None, Option("--concurrency", min=1, help="Trials at a time; otherwise the workers of the experiment.")
]
Port = Annotated[int, Option("--port", min=1, max=65534, help="The port of NNI's web server.")]
Accept = Annotated[
    bool,
    Option(
        "--accept-open-web-server",
        help="Needed: NNI's web server listens on every network interface and asks for no login.",
    ),
]
View = Annotated[bool, Option("--view", help="Train nothing: show the web page of the last launch until Ctrl-C.")]


def launch(
    config: Config,
    service: Service = None,
    service_config: ServiceConfig = None,
    concurrency: Concurrency = None,
    port: Port = DEFAULT_PORT,
    accept_open_web_server: Accept = False,
    out: ExperimentFolder = None,
    data_dir: TrainingDataDirectory = None,
    view: View = False,
    as_json: Json = False,
) -> None:
    """Do the trainings of an experiment as trials of NNI, here or on other machines; the same command goes on."""
    with one_line_errors():
        if not accept_open_web_server:
            raise LaunchError(
                f"NNI's web server would listen on port {port} of every network interface without a login: who reaches "
                "it sees all of the experiment and can change and stop it; add --accept-open-web-server to accept that"
            )
        from ftnas.pipeline.experiments import load_experiment
        from ftnas.pipeline.graph_experiment import is_of_graphs
        from ftnas.pipeline.hardening_experiment import is_of_hardening
        from ftnas.pipeline.launching import Launch, launch_experiment, view_experiment
        from ftnas.pipeline.launching_nni import check_versions
        from ftnas.pipeline.launching_service import load_service

        check_versions()
        if is_of_graphs(config) or is_of_hardening(config):
            raise ConfigError(
                f"{config}: is no experiment of trainings, which alone can be launched; use ftnas experiment"
            )
        settings = load_experiment(config, data_directory=data_dir)
        folder = out or Path("runs") / settings.name
        if view:
            return view_experiment(folder, port=port, tell=_tell)
        plan = Launch(
            service=load_service(service, service_config),
            source=str(service_config or "--service local"),
            concurrency=concurrency or settings.workers,
            port=port,
            tell=_tell,
        )
        print_experiment(launch_experiment(settings, folder, plan), as_json=as_json)


def _tell(line: str) -> None:
    typer.echo(f"ftnas: {line}", err=True)
