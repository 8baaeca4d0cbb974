"""`prism-wsgi doctor`: checks of a deployment, each with what to do."""
