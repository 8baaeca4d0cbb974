"""The report: figures as tables, beside the targets, as a page and as a chart."""
