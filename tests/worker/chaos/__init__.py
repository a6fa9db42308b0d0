"""Kills servers, workers and PostgreSQL at random moments and counts what came of the jobs.

    python -m tests.worker.chaos                     200 jobs, 2 workers, 30 kills: nothing lost, nothing twice
    python -m tests.worker.chaos --database-kills 6  and PostgreSQL itself 6 times, all its processes at once
    python -m tests.worker.chaos --embedded          one server with SQLite and its own worker: maps in pieces, callbacks
    python -m tests.worker.chaos --throughput        no kills: the same jobs with one worker and with two

All but --embedded need PostgreSQL's programs; they start a private one in a temporary folder. What they count is printed as
JSON; the exit status is 1 where anything is lost, wrong or done twice, or two workers are not 1.8 times as fast as one.
"""
