"""Other scorers than the environment: functions and judges, for stored episodes and as rewards."""
