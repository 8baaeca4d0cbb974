"""The subjects: what is measured, and the requests that each of them answers."""
