"""Jobs: what is to be done, by whom it is being done, what came of it. Knows no slides and no models.

A *job* is what one client asked for. A *computation* is what a worker does for it; jobs that ask the same share one.

- `states`: the states and the moves between them that are legal.
- `job`: the values that describe both.
- `tables`, `migrations`, `database`, `patience`, `sessions`: where they are kept, SQLite or PostgreSQL.
- `claims`: what workers do with computations; `store`: what clients do with jobs, on top of it.
- `queue`: how workers learn that there is something to do.
- `runner`: takes computations and does them.
- `watch`, `pulse`, `watchdog`: the signs of life of a worker and its job, and the worker's end when the job is stuck.
- `retention`: removes what is old, and what nobody refers to.
- `supervisor`, `processes`: keeping a worker process alive, and having it go when it should.
"""
