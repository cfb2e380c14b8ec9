"""The report of a run."""
def write_report(folder):
    pass
