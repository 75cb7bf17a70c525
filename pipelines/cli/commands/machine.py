"""Commands about the machine itself."""

import json

import typer

from pipelines.cli.options import JsonOption

__all__ = ["doctor"]


def doctor(as_json: JsonOption = False) -> None:
    """What this machine allows, and how to mend what is missing."""
    from pipelines.cli.doctor import examine, print_findings

    findings = examine()
    if as_json:
        typer.echo(json.dumps([finding.__dict__ for finding in findings], indent=2))
    else:
        print_findings(findings)
    if any(finding.needed and not finding.found for finding in findings):
        raise typer.Exit(1)
