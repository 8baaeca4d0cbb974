"""The WSGI servers that the tests start: how each is told to serve an application at a port."""

import importlib.util
import os
import shutil
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.served import ROOT

APP = "tests.servers.served_app:application"
_APACHE_MODULES = Path("/usr/lib/apache2/modules")

Command = list[str]


def gunicorn(*options: str, app: str = APP) -> Callable[[int, Path], Command]:
    """Return the command of a gunicorn with these options."""

    def command(port: int, _: Path) -> Command:
        if "--worker-class=gevent" in options:
            _module("gevent")
        return [*_module("gunicorn"), f"--bind=127.0.0.1:{port}", *options, app]

    return command


def uwsgi(*options: str, app: str = APP) -> Callable[[int, Path], Command]:
    """Return the command of a uWSGI with these options."""

    def command(port: int, _: Path) -> Command:
        program = Path(sys.executable).with_name("uwsgi")
        if not program.exists():
            pytest.skip("uwsgi is not in the environment (pip install uwsgi; it needs gcc)")
        place = [f"--http-socket=127.0.0.1:{port}", f"--module={app}", "--need-app", f"--virtualenv={sys.prefix}"]
        # It closes each connection, which nobody knows unless it says so.
        return [str(program), *place, "--add-header=Connection: close", "--die-on-term", *options]

    return command


def cheroot(port: int, _: Path) -> Command:
    return [*_module("cheroot"), APP, f"--bind=127.0.0.1:{port}", "--threads=16"]


def granian(port: int, _: Path) -> Command:
    place = ["--host=127.0.0.1", f"--port={port}"]
    return [*_module("granian"), "--interface=wsgi", *place, "--workers=2", "--blocking-threads=8", APP]


def bjoern(port: int, _: Path) -> Command:
    _module("bjoern")
    module, name = APP.split(":")
    program = f"import bjoern; from {module} import {name}; bjoern.run({name}, '127.0.0.1', {port})"
    return [sys.executable, "-c", program]


def uvicorn(port: int, _: Path) -> Command:
    _module("a2wsgi")
    return [*_module("uvicorn"), "--port", str(port), "--workers=2", "tests.servers.asgi_app:application"]


def hypercorn(port: int, _: Path) -> Command:
    return [*_module("hypercorn"), "--bind", f"127.0.0.1:{port}", "--workers=2", f"wsgi:{APP}"]


def mod_wsgi(*, is_daemon: bool) -> Callable[[int, Path], Command]:
    """Return the command of an Apache with mod_wsgi, in daemon mode or embedded."""

    def command(port: int, folder: Path) -> Command:
        program, module = shutil.which("apache2", path="/usr/sbin:/usr/bin"), _APACHE_MODULES / "mod_wsgi.so"
        if program is None or not module.exists():
            pytest.skip("apache2 and libapache2-mod-wsgi-py3 are not installed")
        if f"python{sysconfig.get_python_version()}".encode() not in module.read_bytes():
            pytest.skip(f"the mod_wsgi that is installed is not for Python {sysconfig.get_python_version()}")
        config = folder / "apache.conf"
        config.write_text(_apache(port, folder, module, is_daemon=is_daemon))
        return [program, "-f", str(config), "-DFOREGROUND"]

    return command


def _apache(port: int, folder: Path, module: Path, *, is_daemon: bool) -> str:
    path = f"{ROOT}:{sysconfig.get_path('purelib')}"
    names = ("mpm_event", "authz_core")
    loaded = "".join(f"LoadModule {name}_module {_APACHE_MODULES}/mod_{name}.so\n" for name in names)
    place = f"ServerName localhost\nListen 127.0.0.1:{port}\nPidFile {folder}/pid\nDefaultRuntimeDir {folder}\n"
    who = "User www-data\nGroup www-data\n" if os.getuid() == 0 else ""
    processes = "StartServers 2\nServerLimit 2\nThreadsPerChild 16\nMaxRequestWorkers 32\n"
    script = ROOT / "tests" / "servers" / "served_app.py"
    alias = f"WSGIScriptAlias / {script} application-group=%{{GLOBAL}}"
    mode = f"WSGIPythonPath {path}\n{alias}\n"
    if is_daemon:
        mode = f"WSGIDaemonProcess site processes=2 threads=16 python-path={path}\n{alias} process-group=site\n"
    return (
        f"{place}{loaded}LoadModule wsgi_module {module}\n{who}{processes}ErrorLog /dev/stderr\n"
        f"WSGISocketPrefix {folder}/wsgi\n{mode}<Directory {script.parent}>\nRequire all granted\n</Directory>\n"
    )


def _module(name: str) -> Command:
    """Return the command that runs a module; skip the test where it is not installed."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    return [sys.executable, "-m", name]
