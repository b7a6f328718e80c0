-- where each prediction comes from: input digest, model fingerprint, worker, time, and the job that scored it
SELECT i.job_id, a.name AS archive, r.path, p.input_sha256, m.name AS model, m.version, m.fingerprint,
       p.job_id AS scored_in_job, p.worker, p.scored_at
FROM job_items i
JOIN jobs j ON j.id = i.job_id
JOIN archives a ON a.id = j.archive_id
JOIN models m ON m.id = j.model_id
JOIN predictions p ON p.recording_id = i.recording_id AND p.model_id = j.model_id
JOIN recordings r ON r.id = i.recording_id
WHERE i.job_id = COALESCE(:job, i.job_id)
ORDER BY i.job_id, i.recording_id
