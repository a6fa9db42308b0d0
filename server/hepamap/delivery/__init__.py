"""Telling other systems that an analysis has finished: signed requests, from a table that is written with the job's end.

`outbox.enqueue` is called by the job store in the transaction that finishes jobs, so nothing is told that did not happen, and
nothing that happened is forgotten. `dispatcher` sends what is due, again and later where it fails: a receiver may get an event
twice, and knows it by its id.
"""
