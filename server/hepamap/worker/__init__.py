"""The worker process: takes analyses from the job store and runs the models. `python -m hepamap.worker` starts one."""
