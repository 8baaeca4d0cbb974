"""What prism_wsgi costs, beside the least it could cost and beside what else there is."""
