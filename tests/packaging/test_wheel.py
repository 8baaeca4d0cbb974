"""The wheel: what is in it, and the upgrade from a clean installation in each of the ways there are."""

import tomllib
import zipfile
from pathlib import Path

import pytest
from sqlalchemy import NullPool, create_engine, inspect

from prism_wsgi import migrate
from tests.support.wheels import ROOT, clean_python, pip, succeed


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin directory of a clean environment with the wheel and what it depends on, no driver."""
    directory = tmp_path_factory.mktemp("installed")
    python = clean_python(directory)
    pip("--python", python, "install", "--quiet", wheel, cwd=directory)
    return python.parent


def assert_upgraded(directory: Path) -> None:
    url = f"sqlite:///{directory}/s.db"
    assert migrate.check(url).ok
    tables = inspect(create_engine(url, poolclass=NullPool)).get_table_names()
    assert set(tables) == {
        "prism_sessions",
        "prism_sessions_sweeps",
        "prism_sessions_events",
        "prism_alembic_version",
    }


def test_wheel_carries_the_migrations_and_nothing_of_the_checkout_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    migrations = {
        f"prism_wsgi/{path.relative_to(ROOT)}"
        for path in [*(ROOT / "migrations").rglob("*.py"), ROOT / "migrations" / "script.py.mako"]
    }
    assert migrations | {"prism_wsgi/alembic.ini", "prism_wsgi/py.typed"} <= names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"prism_wsgi"}
    assert not [name for name in names if "__pycache__" in name]


def test_wheel_carries_the_templates_and_files_of_the_pages(wheel: Path) -> None:
    pages = ROOT / "prism_wsgi" / "pages"
    files = {str(path.relative_to(ROOT)) for path in [*pages.glob("templates/*"), *pages.glob("static/*")]}
    assert {"prism_wsgi/pages/templates/devices.html", "prism_wsgi/pages/static/pages.css"} <= files
    assert files <= set(zipfile.ZipFile(wheel).namelist())


def test_extras_bring_what_the_default_authentication_of_each_database_needs() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert [one.split(">")[0] for one in extras["mysql"]] == ["PyMySQL[rsa]"]
    assert [one.split(">")[0] for one in extras["mariadb"]] == ["PyMySQL"]


def test_installed_wheel_upgrades_by_its_own_command(installed: Path, tmp_path: Path) -> None:
    succeed(installed / "prism-wsgi", "db", "upgrade", cwd=tmp_path, PRISM_DATABASE_URL="sqlite:///s.db")
    assert_upgraded(tmp_path)


def test_installed_wheel_upgrades_from_python(installed: Path, tmp_path: Path) -> None:
    script = "from prism_wsgi import migrate; migrate.upgrade(); print(migrate.check().ok)"
    url = "sqlite:///s.db"
    assert succeed(installed / "python", "-c", script, cwd=tmp_path, PRISM_DATABASE_URL=url) == "True\n"
    assert_upgraded(tmp_path)


def test_installed_wheel_upgrades_by_plain_alembic_with_our_ini(installed: Path, tmp_path: Path) -> None:
    ini = succeed(installed / "prism-wsgi", "db", "config-path", cwd=tmp_path).strip()
    assert ini.endswith("/site-packages/prism_wsgi/alembic.ini")
    alembic: list[str | Path] = [installed / "alembic", "-c", ini, "-x", "url=sqlite:///s.db"]
    succeed(*alembic, "upgrade", "head", cwd=tmp_path)
    succeed(*alembic, "check", cwd=tmp_path)
    assert_upgraded(tmp_path)


def test_installed_wheel_upgrades_by_alembic_from_a_pyproject_of_the_users_own(
    installed: Path, tmp_path: Path
) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.alembic]\nscript_location = "prism_wsgi:migrations"\n')
    alembic: list[str | Path] = [installed / "alembic", "upgrade", "head"]
    succeed(*alembic, cwd=tmp_path, PRISM_DATABASE_URL="sqlite:///s.db")
    assert_upgraded(tmp_path)


@pytest.mark.parametrize("scheme", ["postgresql", "mysql", "mysql+pymysql", "mariadb"])
def test_installed_wheel_writes_sql_without_any_driver(installed: Path, tmp_path: Path, scheme: str) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.alembic]\nscript_location = "prism_wsgi:migrations"\n')
    alembic: list[str | Path] = [installed / "alembic", "-x", f"url={scheme}://", "upgrade", "head", "--sql"]
    assert "prism_sessions" in succeed(*alembic, cwd=tmp_path)
