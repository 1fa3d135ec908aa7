returning jobs
