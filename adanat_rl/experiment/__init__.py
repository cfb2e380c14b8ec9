"""From a resolved configuration to live objects, run folder, checkpoints, resume; the jobs behind the commands."""
