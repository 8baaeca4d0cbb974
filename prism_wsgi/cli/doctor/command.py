"""`prism-wsgi doctor`: the problems of a deployment, and the commands that fix them."""

import os
from dataclasses import asdict
from json import dumps

import click

from prism_wsgi.cli.doctor.checks import SECRET_VARIABLE, check_database, check_secret
from prism_wsgi.cli.doctor.cookie_check import check_cookie
from prism_wsgi.cli.doctor.findings import Finding, Level
from prism_wsgi.cli.options import json_option, option, store_options
from prism_wsgi.cli.text import one_line


@click.command
@store_options
@option("--visit", metavar="ADDRESS", help="An http(s) address of the application, to look at the cookie it sends.")
@json_option
@click.pass_context
def doctor(context: click.Context, url: str, table_name: str | None, visit: str | None, json: bool) -> None:
    """Check a deployment and say how to fix it.

    Looks at the database, its clock, isolation level (SQLite: journal) and schema, whether it takes writes, the lag
    of the sweeper, and the secret: the environment variable SESSION_SECRET, which is not shown.
    With --visit, also at the cookie that the application gives to a new visitor.

    \b
    Exit codes:
      0  no check failed (there may be warnings)
      1  a check failed; its line says what to type
      2  wrong usage
    """
    findings = [*check_database(url, table_name), check_secret(os.environ.get(SECRET_VARIABLE, ""))]
    if visit is not None:
        findings += check_cookie(visit)
    ok = all(finding.level is not Level.FAIL for finding in findings)
    if json:
        click.echo(dumps({"ok": ok, "findings": [asdict(finding) for finding in findings]}))
    else:
        for finding in findings:
            click.echo(_line(finding))
    context.exit(0 if ok else 1)


def _line(finding: Finding) -> str:
    advice = f"; {finding.fix}" if finding.fix else ""
    return f"{finding.level:<4}  {finding.check:<9}  {one_line(finding.message)}{advice}"
