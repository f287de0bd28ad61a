"""Progress display, reports, plots and exports of a run, all derived from its record."""
