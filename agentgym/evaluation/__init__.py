"""Playing a frozen panel, statistics, records, reports and plots."""
