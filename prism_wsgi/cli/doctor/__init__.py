"""`prism-wsgi doctor`: checks of a deployment, each with advice."""
