"""Numbers of many runs: intervals, ranks and effects. Arrays in, numbers out."""
