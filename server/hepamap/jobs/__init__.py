"""Jobs: what is to be done, by whom it is being done, what came of it. Knows no slides and no models.

- `states`: the states and the moves between them that are legal.
- `job`: the values that describe a job.
- `tables`, `migrations`, `database`: where jobs are kept.
- `store`: every question to and change of the stored jobs.
- `runner`: takes jobs from the store and does them.
- `supervisor`, `processes`: keeping a worker process alive, and having it go when it should.
"""
