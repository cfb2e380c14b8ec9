"""Kills, freezes, broken disks and torn files at random instants; then the same command until it is done."""
