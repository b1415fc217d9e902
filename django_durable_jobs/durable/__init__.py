"""What users write: the decorator, handles on jobs, and the durable calls inside a job."""
