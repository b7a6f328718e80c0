-- what failed and why, by job and reason
SELECT f.job_id, f.stage, f.reason, COUNT(*) AS records, MIN(r.path) AS for_example, MIN(f.detail) AS detail
FROM failures f JOIN recordings r ON r.id = f.recording_id
GROUP BY f.job_id, f.stage, f.reason
ORDER BY f.job_id, records DESC
