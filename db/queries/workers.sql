-- what each worker process scored, and when, by job
SELECT job_id, worker, records, first_scored_at, last_scored_at
FROM job_workers
WHERE job_id = COALESCE(:job, job_id)
ORDER BY job_id, first_scored_at
