-- records per superclass, by job, at the thresholds of its model
SELECT j.id AS job_id, a.name AS archive, m.name AS model, m.version, SUM(c.scored + c.reused) AS records,
       SUM(c.norm) AS norm, SUM(c.mi) AS mi, SUM(c.sttc) AS sttc, SUM(c.cd) AS cd, SUM(c.hyp) AS hyp
FROM jobs j
JOIN archives a ON a.id = j.archive_id
JOIN models m ON m.id = j.model_id
JOIN chunks c ON c.job_id = j.id
WHERE j.id = COALESCE(:job, j.id) AND m.threshold_norm IS NOT NULL  -- of others see the query classes
GROUP BY j.id, a.name, m.name, m.version
ORDER BY j.id
