-- records per class of models that tell classes of their own, by job, at their thresholds
SELECT j.id AS job_id, a.name AS archive, m.name AS model, m.version, c.name AS class, c.threshold,
       COUNT(o.probability) AS scored, COUNT(CASE WHEN o.probability >= c.threshold THEN 1 END) AS records
FROM jobs j
JOIN archives a ON a.id = j.archive_id
JOIN models m ON m.id = j.model_id
JOIN model_classes c ON c.model_id = m.id
JOIN job_items i ON i.job_id = j.id
LEFT JOIN class_probabilities o ON o.recording_id = i.recording_id AND o.model_id = c.model_id AND o.position = c.position
WHERE j.id = COALESCE(:job, j.id)
GROUP BY j.id, a.name, m.name, m.version, c.position, c.name, c.threshold
ORDER BY j.id, c.position
