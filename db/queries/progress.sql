-- how far each job is
SELECT p.job_id, a.name AS archive, m.name AS model, m.version, p.state, p.total, p.scored, p.failed, p.remaining,
       p.records_per_second
FROM job_progress p
JOIN jobs j ON j.id = p.job_id
JOIN archives a ON a.id = j.archive_id
JOIN models m ON m.id = j.model_id
WHERE p.job_id = COALESCE(:job, p.job_id)
ORDER BY p.job_id
