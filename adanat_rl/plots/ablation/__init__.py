"""The report of a sweep: which arm won, how sure that is, and where a reward was hacked."""
