"""`python -m prism_wsgi.cli`, the command line where the script `prism-wsgi` is not on the path."""

from prism_wsgi.cli import main

if __name__ == "__main__":
    main()
