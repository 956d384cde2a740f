import os

def post_worker_init(worker):
    # The worker handles signals from here on.
    open(os.path.join(os.environ["BOOTED"], str(worker.pid)), "w").close()
