"""The machine: the databases of a run, the processors they are placed on, what the figures were measured on."""
