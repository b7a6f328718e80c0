-- where each prediction comes from: input digest, model fingerprint, job, worker, time
SELECT a.name AS archive, r.path, p.input_sha256, m.name AS model, m.version, m.fingerprint, p.job_id, p.worker, p.scored_at
FROM predictions p
JOIN recordings r ON r.id = p.recording_id
JOIN archives a ON a.id = r.archive_id
JOIN models m ON m.id = p.model_id
ORDER BY a.name, r.path, m.version
