"""Alembic's entry point; prism_wsgi/migrate.py does the work."""

from prism_wsgi import migrate

migrate.run()
