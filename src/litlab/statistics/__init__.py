"""Package of the statistics over seeds: functions of numbers, which know no runs."""
