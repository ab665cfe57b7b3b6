"""Training: tasks, steps, the loop, optimizers and schedules."""
