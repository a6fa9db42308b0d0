"""The HTTP server. It never loads a model: it checks requests, queues jobs and serves what the worker wrote.

- `app`: puts it together; `serve` runs it.
- `routes`: one file per noun.
- `schemas`: requests and answers; `views`: from a job to an answer.
- `errors`: from a failure to a problem document; `middleware`: request ids and the last resort.
- `slide_paths`, `uploads`, `submission`: from a request to a job.
"""
