"""What a run will take, before it is paid for: the product's schedules in virtual time."""
