"""The worker process: small services, composed in ``worker.py``. Services know no other service."""
