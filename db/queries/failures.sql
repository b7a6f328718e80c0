-- what failed and why, by job and reason, each with its first record as an example
SELECT c.job_id, c.stage, c.reason, c.records, r.path AS for_example, f.detail
FROM (SELECT job_id, stage, reason, COUNT(*) AS records, MIN(recording_id) AS first
      FROM failures WHERE job_id = COALESCE(:job, job_id) GROUP BY job_id, stage, reason) c
JOIN failures f ON f.job_id = c.job_id AND f.recording_id = c.first
JOIN recordings r ON r.id = c.first
ORDER BY c.job_id, c.records DESC, c.reason
